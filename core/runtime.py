"""The process: denormals, device, random numbers, and when to stop."""

import ctypes
import os
import platform
import select
import signal
import threading
from argparse import Namespace
from collections.abc import Callable

import numpy as np
import torch

from core import distributed
from core.checks import check_device
from core.ending import STOPPED, say
from core.errors import Stopped, UserError

NOISE, VALIDATION, PROBE, PREPARATION, DROPOUT = range(
    1, 6
)  # streams of random numbers that a run draws from
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
GRACE = 60  # seconds in which a signal is obeyed, else the process ends all the same
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # glibc's numbers of what can be set


def start(device: str) -> torch.device:
    """Flushes denormals before the first worker thread starts, keeps memory, and resolves --device."""
    torch.set_flush_denormal(True)
    keep_memory()
    torch.backends.cudnn.deterministic = True
    found = resolve(device)
    if found.type == "cuda" and "LOCAL_RANK" in os.environ:
        found = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(found)
    distributed.start(found)
    return found


def keep_memory() -> None:
    """What a step frees stays with the process: glibc would hand it back to the system, and ask for thousands of pages in every step."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(TRIM_THRESHOLD, -1)  # never hands back
        ctypes.CDLL(None).mallopt(
            MMAP_THRESHOLD, 2**30
        )  # bytes of what is asked of the system on its own


def resolve(device: str) -> torch.device:
    """auto, cpu (= -1), cuda, cuda:N (= N)"""
    check_device(device)
    name = {"-1": "cpu", "auto": "cuda" if torch.cuda.is_available() else "cpu"}.get(device, device)
    name = f"cuda:{name}" if name.isdecimal() else name
    kind, _, number = name.partition(":")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise UserError(f"device '{device}': torch sees {torch.cuda.device_count()} CUDA devices")
    return torch.device(name)


def seeded(*numbers: int) -> torch.Generator:
    """A generator whose stream belongs to these numbers alone."""
    return torch.Generator().manual_seed(
        int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
    )


def data_seed(args: Namespace) -> int:
    """Of the order of the images, their augmentation and their noise: --data_seed, or the run's --seed."""
    return args.seed if args.data_seed is None else args.data_seed


def precision(name: str, device: torch.device) -> torch.dtype | None:
    """What --amp stands for on a device: the type that convolutions compute in, or none but their own."""
    if name == "auto" and device.type == "cuda":
        name = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    elif name == "auto":
        name = (
            "bf16" if torch.cpu._is_amx_tile_supported() else "off"
        )  # without such units a CPU is slower in it
    if name == "fp16" and device.type == "cpu":
        raise UserError("amp fp16: a CPU does not compute in it; choose bf16, auto or off")
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "off": None}[name]


def compiled(f: Callable) -> Callable:
    """The function as torch.compile makes it, once it is sure that this machine can."""
    try:
        torch.compile(torch.neg)(torch.ones(2))
    except (torch._dynamo.exc.TorchDynamoException, RuntimeError, OSError) as error:
        raise UserError(
            f"compile: torch.compile does not work here ({str(error).strip().splitlines()[0]:.150})"
        ) from None
    torch._functorch.config.donated_buffer = (
        False  # the gradients of several terms are taken of one graph
    )
    return torch.compile(f)


class Stop:
    """Decides when to stop: a first signal is obeyed where `check` is called, where all is whole.

    A second one ends the process at once, and so does a first one that is not obeyed within GRACE,
    as when a step never ends.
    """

    def __enter__(self) -> "Stop":
        self.asked = ""
        self.before = {number: signal.signal(number, self.ask) for number in SIGNALS}
        self.watch = Watch()
        return self

    def __exit__(self, *error) -> None:
        self.watch.close()
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def ask(self, number: int, _) -> None:
        self.asked = signal.Signals(number).name
        for other in SIGNALS:
            signal.signal(other, signal.SIG_DFL)

    def check_alone(self) -> None:
        """Where several processes do not all come by."""
        if distributed.world() == 1:
            self.check()

    def check(self) -> None:
        asked = [
            name for name in distributed.gather_objects(self.asked) if name
        ]  # several processes stop after the same step
        if asked:
            self.watch.close()
            raise Stopped(asked[0])


class Watch:
    """Ends the process when a signal has come and is not obeyed within GRACE, or when a second one comes.

    Python calls handlers between two of its own instructions, so never inside of a step that hangs.
    A descriptor to which the interpreter writes each signal at once is read by a thread of ours.
    """

    CLOSED = 0  # stands for no signal

    def __init__(self):
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.writer, False)
        self.before = signal.set_wakeup_fd(self.writer, warn_on_full_buffer=False)
        self.thread = threading.Thread(target=self.wait, daemon=True)
        self.thread.start()

    def close(self) -> None:
        """The signal is obeyed, or none will be waited for."""
        if self.thread.is_alive():
            signal.set_wakeup_fd(self.before)
            os.write(self.writer, bytes([self.CLOSED]))
            self.thread.join()

    def wait(self) -> None:
        first = self.read()
        second = first if first == self.CLOSED else self.read(GRACE)
        if second == self.CLOSED:
            os.close(self.reader)
            os.close(self.writer)
            return
        if second is not None:
            os._exit(128 + second)
        name = signal.Signals(first).name
        say(f"stopped: {name} was not obeyed within {GRACE} s; what was saved is whole")
        os._exit(STOPPED)

    def read(self, seconds: float | None = None) -> int | None:
        """The next signal that asks for an end, or CLOSED; None where the time is over."""
        while select.select([self.reader], [], [], seconds)[0]:
            number = os.read(self.reader, 1)[0]
            if number == self.CLOSED or number in SIGNALS:
                return number
        return None
