"""The laboratory demo's table, figure and report: a student that was adapted without truth."""

from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from algo_functions import Meter
from checkpoints.checkpoint import restore
from core.files import write_csv, write_text
from data.batches import Images, build_loader, present
from data_loader import Request, build_splits
from models.base import FirstImage, Network
from physics.base import Physics
from physics.single_pixel import SinglePixel
from preparation.setup import physics_of_recording
from recordings.file import read_recording, truth_path
from report.figures import draw_grid, psnr_notes, select_detailed
from report.statistics import paired
from report.tables import markdown
from training.cache import Views
from training.held_out import HeldOutMeter, in_decibels, interval_of
from training.validation import outputs


@dataclass(frozen=True)
class Estimates:
    """A network's images of all test frames, scored with their truth and without it."""

    images: Tensor
    scores: Meter
    without_truth: HeldOutMeter  # the error of all that was recorded, as the values estimate it
    by_truth: float  # the same error, per pixel
    parameters: int

    def row(self, name: str) -> dict:
        """A row of the table."""
        scores, estimated = self.scores.summary(), self.without_truth.summary()
        low, high = interval_of(estimated)
        return {
            "": name,
            "PSNR": scores["psnr"],
            "SSIM": scores["ssim"],
            "without truth": estimated["recorded_psnr"],
            "95 % interval": f"{low:.2f} .. {high:.2f}",
            "by the truth": in_decibels(self.by_truth),
            "parameters": self.parameters,
        }


def report_laboratory(
    trained: dict[str, str], args: Namespace, folder: Path, device: torch.device
) -> dict:
    """Evaluates the teacher, and the student as it was, adapted, adapted alone, and oracle."""
    frames = test_frames(folder / "lab.npz")
    estimates = estimate_all(trained, frames, device)
    rows = [one.row(name) for name, one in estimates.items()]
    _, before, *others = trained
    psnr = {name: one.scores.per_image()["psnr"] for name, one in estimates.items()}
    gain, alone, limit = (paired(psnr[name], psnr[before]) for name in others)
    closed = gain.mean / limit.mean if limit.mean > 0 else float("nan")
    text = f"""\
{markdown(rows)}

PSNR and SSIM are means over {len(frames)} test frames of '{args.scenes}' ({args.n} x {args.n} \
pixels, {args.photons:g} photons a pattern), whose truth was opened for this table.
{args.frames} other frames were recorded to adapt the student, and their truth was not opened.
Adapting gains {gain.mean:+.2f} dB (95 % interval over the frames, as if none overlapped, \
{gain.low:+.2f} .. {gain.high:+.2f} dB), without the teacher {alone.mean:+.2f} dB, \
and with the truth as labels {limit.mean:+.2f} dB: {closed:.0%} of this gap is closed.
The columns behind SSIM are the error in all that was recorded, in dB: as it is estimated \
without truth, with its interval, and by the truth.
This is one recording with one seed ({args.seed})."""
    print(f"\n{text}\n")
    write_csv(folder / "table.csv", rows)
    draw_examples(frames, estimates, list(trained), args.pictures, folder / "figure.png")
    write_text(
        folder / "report.md", f"# Laboratory\n\n{text}\n\n![truth and estimates](figure.png)\n"
    )
    return {"rows": rows, "gain": gain.mean, "closed": closed, "text": text}


def test_frames(path: Path) -> Images:
    """The recorded frames for the test, with their clean images."""
    config = read_recording(path).config
    request = Request("recorded", config["n"], config["c"], str(path), truth=str(truth_path(path)))
    return build_splits(request, wanted=("test",))["test"]


def estimate_all(
    trained: dict[str, str], frames: Images, device: torch.device
) -> dict[str, Estimates]:
    """Back-projections, the students, and the teacher."""
    teacher, before, *_ = trained
    checkpoints = {name: restore(path, {}) for name, path in trained.items()}
    students = [name for name in trained if name != teacher]
    estimates = {}
    for owner, names in ((before, students), (teacher, [teacher])):
        physics = checkpoints[owner].physics.to(device)
        title = f"back-projection, cr {physics.config['cr']:g}"
        estimates[title] = estimate(FirstImage(physics.config["c"]), physics, frames, device)
        for name in names:
            network = checkpoints[name].network.to(device)
            estimates[name] = estimate(network, physics, frames, device)
    return estimates


def estimate(network: Network, physics: Physics, frames: Images, device: torch.device) -> Estimates:
    """A network's images of all frames, and their errors."""
    recording = physics_of_recording(frames)
    assert recording is not None and isinstance(physics, SinglePixel), "one camera recorded"
    recording = recording.to(device)
    scores, without_truth = Meter(), HeldOutMeter(physics, recording)
    images, errors = [], []
    views = Views(physics, build_loader(frames, 50), device, seed=0)
    for batch, y, output in outputs(network, views):
        truth, measured = present(batch.image), recording.measured_in(present(batch.recorded))
        scores.add(output, truth)
        without_truth.add_view(network, batch, y, output)
        error = recording.operator.A(output - truth) * measured
        errors.append(error.square().flatten(1).sum(1) / truth[0].numel())
        images.append(output.cpu())
    parameters = sum(w.numel() for w in network.parameters())
    by_truth = torch.cat(errors).mean().item()
    return Estimates(torch.cat(images), scores, without_truth, by_truth, parameters)


def draw_examples(
    frames: Images, estimates: dict[str, Estimates], trained: list[str], count: int, path: Path
) -> None:
    """A few test frames, and what the students and the teacher make of them."""
    teacher, before, adapted, _, oracle = trained
    first = next(iter(estimates))
    truth = torch.stack([frames[i]["image"] for i in range(len(frames))])
    selected = select_detailed(truth, count)
    columns = {
        name.replace(", ", ",\n"): estimates[name].images[selected]
        for name in (first, before, adapted, oracle, teacher)
    }
    notes = psnr_notes(columns, truth[selected])
    draw_grid({"truth": truth[selected], **columns}, None, path, notes)  # without maps of errors
