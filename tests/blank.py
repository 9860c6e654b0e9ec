"""Figures that are composed and not rendered: Agg takes three quarters of a tiny training."""

from collections.abc import Iterator
from contextlib import contextmanager

from matplotlib.figure import Figure
from PIL import Image

RENDER, RENDERED = Figure.savefig, True


def save(figure: Figure, file, **how) -> None:
    """The picture, or an empty one of its size."""
    if RENDERED:
        RENDER(figure, file, **how)
        return
    size = [round(inches * how.get("dpi", figure.dpi)) for inches in figure.get_size_inches()]
    Image.new("L", size, 255).save(file, "PNG", compress_level=1)


def render(yes: bool) -> None:
    """Whether figures are rendered from here on."""
    global RENDERED
    RENDERED, Figure.savefig = yes, save


@contextmanager
def rendered(yes: bool) -> Iterator[None]:
    """Whether figures are rendered here."""
    before = RENDERED
    render(yes)
    try:
        yield
    finally:
        render(before)


def rendered_by(patch, module, name: str) -> None:
    """What this function of a module draws is rendered, and nothing else of a test."""
    draw = getattr(module, name)

    def drawn(*args):
        with rendered(True):
            draw(*args)

    patch.setattr(module, name, drawn)
