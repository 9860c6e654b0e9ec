"""The dataset `recorded`: frames of a laboratory, which have values but no clean images."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from core.errors import UserError
from data.batches import Images, Source
from data.images import Request
from data.splits import SPLITS
from recordings.file import Recording, read_recording, read_truth


class Frames(Sequence):
    """The clean images of some frames, where they are known."""

    def __init__(self, recording: Recording, numbers: Tensor, truth: Tensor | None = None):
        self.recording, self.numbers, self.truth = recording, numbers, truth

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, i: int) -> Tensor:
        if self.truth is None:
            raise UserError(
                "a recording has no clean images: ordering 'variance', x0 'lmmse' and scores "
                "need them; leave these out, or evaluate with the truth of a simulation"
            )
        return self.truth[self.numbers[i]]


class RecordedFrames(Images):
    """Recorded values in the layout of the physics, the same in every epoch."""

    def __init__(
        self, source: Source, subset: Tensor, augment_seed: int | None = None, shift: bool = False
    ):
        super().__init__(source, subset)  # values are not augmented
        assert isinstance(source.images, Frames), "only a recording has frames"
        self.recording, self.truth = source.images.recording, source.images.truth
        self.numbers = source.images.numbers[subset]  # of the frames in the file

    def __getitems__(self, places: Sequence[int]) -> dict:
        numbers = self.numbers[torch.as_tensor(places)]
        recording = self.recording
        batch = {
            "image": None if self.truth is None else self.truth[numbers],
            "recorded": recording.place(recording.values[numbers]),
            "variance": recording.place(recording.variance[numbers]),
            "index": torch.as_tensor(places),
        }
        if self.labels is not None:
            batch["label"] = torch.tensor([self.labels[i] for i in places])
        return batch

    def __getitem__(self, i: int) -> dict:
        batch = self.__getitems__([i])
        return {name: None if value is None else value[0] for name, value in batch.items()}

    def hold(self, *_) -> None:
        """Nothing more, as the values are in memory."""

    def name(self, i: int) -> str:
        return self.recording.names[int(self.numbers[i])]


def recorded(request: Request) -> dict[str, Source]:
    """The splits of the recording --data_root, with classes where they are requested."""
    path = Path(request.data_root)
    recording = read_recording(path)
    for name in ("n", "c"):
        if getattr(request, name) != recording.config[name]:
            raise UserError(
                f"{name} {getattr(request, name)}: recording {path} has {name} "
                f"{recording.config[name]}"
            )
    truth = read_truth(request.truth, recording) if request.truth else None
    labels = None
    if request.labelled:
        if recording.labels is None:
            raise UserError(f"recording {path} has no labels, which a classifier needs")
        labels = recording.labels
    splits = {}
    for split in SPLITS:
        numbers = recording.frames(split)
        splits[split] = Source(
            Frames(recording, numbers, truth),
            "fixed",
            RecordedFrames,
            labels=None if labels is None else labels[numbers].tolist(),
            classes=recording.classes,
        )
    return splits
