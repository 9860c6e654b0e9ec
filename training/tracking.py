"""Weights & Biases: never asks, never stops a run."""

import os
from collections.abc import Callable
from pathlib import Path

from core.distributed import rank

RELEASE_KEYS = {  # the original release's names; its "Test" is the pass after every epoch, here over the validation split
    "train_loss": "Student/Train Loss",
    "train_psnr": "Student/Train PSNR",
    "train_ssim": "Student/Train SSIM",
    "val_psnr": "Student/Test PSNR",
    "val_ssim": "Student/Test SSIM",
    "lr": "Student/Learning Rate",
}
TIMEOUT = 60  # seconds


def logged_in() -> bool:
    """Whether a key is in the environment or in ~/.netrc."""
    import netrc

    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return any("wandb" in host for host in netrc.netrc().hosts)
    except (OSError, netrc.NetrcParseError):
        return False


class Tracker:
    """A W&B run, or nothing where that is off, not installed or without a login; and TensorBoard's files where asked for."""

    def __init__(
        self,
        mode: str,  # auto, online, offline or disabled
        project: str,
        name: str,
        key: str,
        folder: Path,
        config: dict,
        tensorboard: bool = False,
        done: int = 0,
    ):
        self.run, self.writer = None, None
        if rank():
            return
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(
                str(folder / "tensorboard"), purge_step=done + 1
            )  # what is repeated is not shown twice
        if mode == "auto":
            mode = os.environ.get("WANDB_MODE") or ("online" if logged_in() else "disabled")
        if mode == "disabled":
            return
        if mode == "online" and not logged_in():
            print("wandb: no login found, logging offline")
            mode = "offline"
        try:
            import wandb
            from wandb.errors import Error
        except ImportError:
            print("wandb: not installed, not logged")
            return
        try:
            settings = wandb.Settings(silent=True, init_timeout=TIMEOUT)
            self.run = wandb.init(
                project=project,
                name=name,
                id=key,
                resume="allow",
                mode="online" if mode == "online" else "offline",
                dir=str(folder),
                config=config,
                settings=settings,
            )
        except (Error, OSError) as error:
            print(f"wandb: off ({str(error).splitlines()[0]})")

    def log(self, row: dict) -> None:
        if self.writer is not None:
            for column, value in row.items():
                self.writer.add_scalar(column.replace("_", "/", 1), value, row["step"])
            self.writer.flush()  # a run that is killed has written what it saved
        self._send(
            lambda run: run.log(
                row | {RELEASE_KEYS[name]: row[name] for name in RELEASE_KEYS if name in row}
            )
        )

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self._send(lambda run: run.finish())

    def _send(self, action: Callable) -> None:
        """A logger that fails is let go; the training goes on."""
        if self.run is None:
            return
        from wandb.errors import Error

        try:
            action(self.run)
        except (Error, OSError, RuntimeError) as error:
            print(f"wandb: off from here on ({str(error).splitlines()[0]})")
            self.run = None
