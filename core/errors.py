"""How a script ends early, and text that is safe to print."""

import re

CONTROL = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"
)  # what no line that is printed holds


class UserError(ValueError):
    """A mistake of the user: scripts print it as one line and exit with code 2."""


class Diverged(ArithmeticError):
    """A loss that is not a number: scripts print it as one line and exit with code 3."""


class Stopped(BaseException):
    """A signal asked for an end: scripts print it as one line and exit with code 75, on which a scheduler can try again."""


def in_a_line(text: str) -> str:
    """A text whose control characters are written out."""
    return CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)
