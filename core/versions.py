"""The versions of what a run is trained with: this toolkit and the packages below it."""

import platform
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("torch", "torchvision", "deepinv", "numpy")


def versions() -> dict[str, str]:
    """The versions of Python, of the packages, and of this checkout where git knows it."""
    packages = {name: package_version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **packages, **code_version()}


def package_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def code_version() -> dict[str, str]:
    """The commit of this checkout, with a mark where files differ from it."""
    words = ["git", "-C", str(Path(__file__).parents[1]), "describe", "--always", "--dirty"]
    with suppress(OSError):
        answer = subprocess.run(words, capture_output=True, text=True)
        if answer.returncode == 0:
            return {"code": answer.stdout.strip()}
    return {}
