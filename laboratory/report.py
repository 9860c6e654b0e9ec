"""What acquire.py prints of a recording."""

from pathlib import Path

from data.splits import SPLITS, WORDS
from recordings.file import Recording


def describe(recording: Recording) -> str:
    """What a recording holds, in a line."""
    counts = [
        f"{len(recording.frames(split))} {WORDS[split]}"
        for split in SPLITS
        if len(recording.frames(split))
    ]
    config = recording.config
    side = f"{config['n']} x {config['n']}"
    colour = " of 3 channels" if config["c"] == 3 else ""
    labels = f", {len(recording.classes)} classes" if recording.classes else ""
    return (
        f"{len(recording)} frames of {side} pixels{colour} ({', '.join(counts)}){labels}, "
        f"{recording.m} values each (cr {config['cr']:g}, {config['ordering']})"
    )


def next_command(path: Path, recording: Recording) -> str:
    """What one does with a recording: adapt a student to it, or reconstruct its frames."""
    if len(recording.frames("train")) and len(recording.frames("val")):
        cr = min(0.1, recording.config["cr"])
        return (
            f"python main_unet_dist.py --dataset recorded --data_root {path} --cr {cr:g} "
            "--teacher TEACHER.pth"
        )
    return f"python predict.py --checkpoint NETWORK.pth --measurements {path}"
