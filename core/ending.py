"""How a script ends: one line on standard error, and an exit code that says which end it was."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from core.errors import Diverged, Stopped, UserError, in_a_line

# Exit codes: of a mistake or the system's no, of a loss that is no number, of what goes on when it is called again
# (on which a scheduler can try again), and of Ctrl-C where nothing can go on.
MISTAKE, DIVERGED, STOPPED, INTERRUPTED = 2, 3, 75, 130


def said(error: OSError) -> str:
    """An error of the system, without its number."""
    if error.filename is None or error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror[0].lower()}{error.strerror[1:]}"


def say(text: str) -> None:
    """One line on standard error, with the script's name before it."""
    print(f"{Path(sys.argv[0]).name}: {text}", file=sys.stderr, flush=True)


def interrupted(_, frame: FrameType | None) -> None:
    """Ctrl-C: an exception that `run` waits for, but in the middle of an import, which would make another one of it, the end."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            say("interrupted")
            os._exit(INTERRUPTED)
        frame = frame.f_back
    raise KeyboardInterrupt


def run(parse: Callable, main: Callable) -> None:
    """The entry point of a script: a user's mistake is one line and exit code 2, and so is every other end; see README."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored
        signal.signal(signal.SIGINT, interrupted)
    try:
        main(parse())
        sys.stdout.flush()
    except UserError as error:
        message = str(error)
        if message.startswith("Caught UserError in DataLoader worker"):  # behind its traceback
            message = message.rpartition("core.errors.UserError: ")[2].strip()
        say(f"error: {in_a_line(message)}")
        sys.exit(MISTAKE)
    except OSError as error:
        say(f"error: {in_a_line(said(error))}")
        try:
            sys.stdout.flush()
        except OSError:
            sys.stdout = None  # what a full device did not take is not tried again at the end
        sys.exit(MISTAKE)
    except Diverged as error:
        say(f"stopped: {error}")
        sys.exit(DIVERGED)
    except Stopped as error:
        say(f"stopped: {error}")
        sys.exit(STOPPED)
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(INTERRUPTED)
    finally:
        if signal.getsignal(signal.SIGINT) is interrupted:  # nothing is left to be interrupted
            signal.signal(signal.SIGINT, signal.SIG_DFL)
