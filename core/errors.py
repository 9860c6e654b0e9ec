"""Errors that end a script, and text that is safe to print."""

import re

# Characters that are never printed in a line.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class UserError(ValueError):
    """A mistake of the user: scripts print it as one line and exit with code 2."""


class Diverged(ArithmeticError):
    """A loss that is not a number: scripts print it as one line and exit with code 3."""


class Stopped(BaseException):
    """A signal stopped a run: scripts print it as one line and exit with code 75."""


def in_a_line(text: str) -> str:
    """A text with its control characters escaped."""
    return CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)
