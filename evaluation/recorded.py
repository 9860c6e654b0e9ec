"""Scores of a checkpoint on recorded frames, whose clean images are not known."""

from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from checkpoints.checkpoint import Checkpoint
from core.files import folder_for, significant, write_csv
from data.batches import Images, build_loader, present
from evaluation.checkpoints import check_recorded, load_test_images, short_name
from models.base import FirstImage, Network
from physics.single_pixel import SinglePixel
from preparation.setup import physics_of_recording
from report.figures import draw_grid, save_image
from training.cache import Views
from training.held_out import HeldOutMeter
from training.validation import outputs

EXAMPLES = 6  # frames on the contact sheet


@dataclass(frozen=True)
class RecordedResult:
    """Estimates of all test frames, and how far they are from the recorded values."""

    name: str
    frames: Images
    meters: dict[str, HeldOutMeter]  # of the network, and of its first image
    images: dict[str, Tensor]  # back-projections of the student's and of all values; the network's
    parameters: int

    @property
    def rows(self) -> list[dict]:
        """The table of its scores."""
        rows = []
        for name, meter in self.meters.items():
            scores = meter.summary()
            rows.append(
                {
                    "recorded values (dB)": scores["recorded_psnr"],
                    "squared error": significant(scores["recorded_error"], 4),
                    "standard error": significant(scores["recorded_error_se"], 2),
                    "frames": scores["images"],
                    "parameters": self.parameters if name == "network" else 0,
                    "estimate": short_name(self.name) if name == "network" else name,
                }
            )
        return rows


def evaluate_recorded(
    path: str, name: str, checkpoint: Checkpoint, args: Namespace, device: torch.device
) -> RecordedResult:
    """Estimates every test frame of a recording; writes nothing yet."""
    frames = load_test_images(args, checkpoint.physics)
    recording, physics = physics_of_recording(frames), checkpoint.physics.to(device)
    assert recording is not None, "the dataset is a recording"
    recording = recording.to(device)
    check_recorded(recording, physics, f"checkpoint {path}", args)
    assert isinstance(physics, SinglePixel), "a recording is made by one camera"
    print(f"{short_name(name)}: {physics.describe()}")
    networks: dict[str, Network] = {
        "first image": FirstImage(physics.config["c"]),
        "network": checkpoint.network.to(device),
    }
    views = Views(physics, build_loader(frames, args.batch_size), device, args.seed)
    meters = {kind: HeldOutMeter(physics, recording) for kind in networks}
    images: dict[str, list[Tensor]] = {"first image": [], "network": [], "all recorded values": []}
    for kind, network in networks.items():
        for batch, y, output in outputs(network, views):
            meters[kind].add_view(network, batch, y, output)
            images[kind].append(output.cpu())
            if kind == "network":
                whole = recording.back_projection(present(batch.recorded))
                images["all recorded values"].append(whole.cpu())
    parameters = sum(w.numel() for w in checkpoint.network.parameters())
    joined = {kind: torch.cat(parts) for kind, parts in images.items()}
    return RecordedResult(name, frames, meters, joined, parameters)


def write_recorded(result: RecordedResult, args: Namespace) -> None:
    """Writes the images and the table of a checkpoint's folder."""
    folder = folder_for(Path(args.results) / "test", result.name)
    count = min(len(result.frames), args.save_batches * args.batch_size)
    for kind, images in result.images.items():
        for i in range(count):
            save_image(images[i], folder / kind.replace(" ", "_") / f"{i:05d}.png")
    if count:
        shown = {kind: images[:EXAMPLES] for kind, images in result.images.items()}
        draw_grid(shown, None, folder / "grid.png")
    errors = {kind: meter.per_image()["error"] for kind, meter in result.meters.items()}
    rows = [
        {"frame": result.frames.name(i)}
        | {
            f"squared error, {kind}": significant(values[i].item())
            for kind, values in errors.items()
        }
        for i in range(len(result.frames))
    ]
    write_csv(folder / "per_frame.csv", rows)
    print(f"written to {folder}")
