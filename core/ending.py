"""How a script ends: one line on standard error, and an exit code for the kind of end."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from core.errors import Diverged, Stopped, UserError, in_a_line

# Exit codes: a user's mistake or an error of the system; a loss that is not a number; a run that
# resumes when a scheduler queues it again; and Ctrl-C without a run.
MISTAKE, DIVERGED, STOPPED, INTERRUPTED = 2, 3, 75, 130


def format_os_error(error: OSError) -> str:
    """An error of the system without its number."""
    if error.filename is None or error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror[0].lower()}{error.strerror[1:]}"


def report(text: str) -> None:
    """One line on standard error, with the script's name before it."""
    print(f"{Path(sys.argv[0]).name}: {text}", file=sys.stderr, flush=True)


def handle_interrupt(_, frame: FrameType | None) -> None:
    """Ctrl-C raises an exception for `run`, but ends the process during an import.

    An import would turn it into another exception.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            report("interrupted")
            os._exit(INTERRUPTED)
        frame = frame.f_back
    raise KeyboardInterrupt


def run(parse: Callable, main: Callable) -> None:
    """The entry point of a script: every early end is one line and an exit code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored
        signal.signal(signal.SIGINT, handle_interrupt)
    try:
        main(parse())
        sys.stdout.flush()
    except UserError as error:
        message = str(error)
        if message.startswith("Caught UserError in DataLoader worker"):  # behind its traceback
            message = message.rpartition("core.errors.UserError: ")[2].strip()
        report(f"error: {in_a_line(message)}")
        sys.exit(MISTAKE)
    except OSError as error:
        report(f"error: {in_a_line(format_os_error(error))}")
        try:
            sys.stdout.flush()
        except OSError:
            sys.stdout = None  # or Python tries again at exit to write to the full device
        sys.exit(MISTAKE)
    except Diverged as error:
        report(f"stopped: {error}")
        sys.exit(DIVERGED)
    except Stopped as error:
        report(f"stopped: {error}")
        sys.exit(STOPPED)
    except KeyboardInterrupt:
        report("interrupted")
        sys.exit(INTERRUPTED)
    finally:
        if signal.getsignal(signal.SIGINT) is handle_interrupt:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
