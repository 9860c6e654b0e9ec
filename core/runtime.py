"""The process: denormals, device, random numbers, and signals to stop."""

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
from core.ending import STOPPED, report
from core.errors import Stopped, UserError
from core.inputs import check_device

NOISE, VALIDATION, PROBE, PREPARATION, DROPOUT = range(1, 6)  # a run's streams of random numbers
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
GRACE = 60  # seconds in which a run must stop after a signal, or the process is ended
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # glibc's numbers of these settings


def start(device: str) -> torch.device:
    """Prepares torch and the process, and returns the device of --device."""
    # Before the first worker thread starts, so that all of them flush denormals.
    torch.set_flush_denormal(True)
    keep_memory()
    torch.backends.cudnn.deterministic = True
    resolved = resolve(device)
    if resolved.type == "cuda" and "LOCAL_RANK" in os.environ:
        resolved = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(resolved)
    distributed.start(resolved)
    return resolved


def keep_memory() -> None:
    """Keeps freed memory in the process.

    glibc would return it to the system, and request thousands of pages again in every step.
    """
    if platform.libc_ver()[0] == "glibc":
        glibc = ctypes.CDLL(None)
        glibc.mallopt(TRIM_THRESHOLD, -1)  # never
        glibc.mallopt(MMAP_THRESHOLD, 2**30)  # bytes of an allocation outside of the heap


def resolve(device: str) -> torch.device:
    """auto, cpu (= -1), cuda, cuda:N (= N)"""
    check_device(device)
    name = {"-1": "cpu", "auto": "cuda" if torch.cuda.is_available() else "cpu"}.get(device, device)
    name = f"cuda:{name}" if name.isdecimal() else name
    kind, _, number = name.partition(":")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UserError(
            f"device '{device}': torch has {count} CUDA devices on this machine; choose auto or cpu"
        )
    return torch.device(name)


def seeded(*numbers: int) -> torch.Generator:
    """A generator with its own stream for these numbers."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> 1))


def data_seed(args: Namespace) -> int:
    """The seed of order, augmentation and noise: --data_seed, or else --seed."""
    return args.seed if args.data_seed is None else args.data_seed


def precision(name: str, device: torch.device) -> torch.dtype | None:
    """The type of convolutions for --amp on a device, or None for their own."""
    if name == "auto" and device.type == "cuda":
        name = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    elif name == "auto":  # without such units a CPU is slower in bf16
        name = "bf16" if torch.cpu._is_amx_tile_supported() else "off"
    if name == "fp16" and device.type == "cpu":
        raise UserError("amp fp16: a CPU cannot compute in fp16; choose bf16, auto or off")
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "off": None}[name]


def full_precision(x: torch.Tensor) -> torch.autocast:
    """Where --amp is off, as 16 bits would not keep the values."""
    return torch.autocast(x.device.type, enabled=False)


def compiled(f: Callable) -> Callable:
    """The function compiled by torch.compile, after a trial on this machine."""
    import torch._functorch.config as functorch
    from torch._dynamo.exc import TorchDynamoException

    try:
        torch.compile(torch.neg)(torch.ones(2))
    except (TorchDynamoException, RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"compile: torch.compile does not work on this machine ({reason:.150}); "
            "leave out --compile"
        ) from None
    functorch.donated_buffer = False  # several terms take gradients of the same graph
    return torch.compile(f)


class Stop:
    """Stops a run after a signal, where `check` is called and everything is consistent.

    A second signal ends the process at once, and so does a first one after GRACE seconds, as when a
    step never ends.
    """

    def __init__(self):
        self.received = ""
        self.before: dict = {}
        self.watch: Watch | None = None

    def __enter__(self) -> "Stop":
        self.received = ""
        self.before = {number: signal.signal(number, self.ask) for number in SIGNALS}
        self.watch = Watch()
        return self

    def __exit__(self, *error) -> None:
        self.close_watch()
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def close_watch(self) -> None:
        assert self.watch is not None, "a Stop is used in a with statement"
        self.watch.close()

    def ask(self, number: int, _) -> None:
        self.received = signal.Signals(number).name
        for other in SIGNALS:
            signal.signal(other, signal.SIG_DFL)

    def check_alone(self) -> None:
        """A check where not all of several processes pass."""
        if distributed.world() == 1:
            self.check()

    def check(self) -> None:
        # All processes stop after the same step.
        signals = [name for name in distributed.gather_objects(self.received) if name]
        if signals:
            self.close_watch()
            raise Stopped(signals[0])


class Watch:
    """Ends the process on a second signal, or GRACE seconds after a first one.

    Python calls handlers between two of its own instructions, so never inside of a step that hangs.
    Therefore a thread reads the descriptor to which the interpreter writes each signal at once.
    """

    CLOSED = 0  # no signal has this number

    def __init__(self):
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.writer, False)
        self.before = signal.set_wakeup_fd(self.writer, warn_on_full_buffer=False)
        self.thread = threading.Thread(target=self.wait, daemon=True)
        self.thread.start()

    def close(self) -> None:
        """Ends the thread."""
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
        report(
            f"stopped: no end of the step within {GRACE} s after {name}; what was saved is intact"
        )
        os._exit(STOPPED)

    def read(self, seconds: float | None = None) -> int | None:
        """The next signal, or CLOSED; None after so many seconds."""
        while select.select([self.reader], [], [], seconds)[0]:
            number = os.read(self.reader, 1)[0]
            if number == self.CLOSED or number in SIGNALS:
                return number
        return None
