"""Figures are rendered for the tests that look at them, and the long tests are shared out."""

import blank
import matplotlib.pyplot as plt
import numpy as np
import pytest
from conftest import in_share
from PIL import Image


def colours(path) -> int:
    """How many a saved figure has."""
    figure, axis = plt.subplots(figsize=(2, 1))
    axis.plot([1, 2])
    figure.savefig(path, dpi=50)
    plt.close(figure)
    with Image.open(path) as image:
        assert image.format == "PNG" and image.size == (100, 50)
        return len(np.unique(np.asarray(image.convert("L"))))


@pytest.mark.pictures
def test_a_test_that_looks_at_pictures_gets_them(tmp_path):
    assert colours(tmp_path / "a.png") > 2


def test_another_one_gets_empty_ones_but_where_it_asks(tmp_path):
    assert colours(tmp_path / "a.png") == 1
    with blank.rendered(True):
        assert colours(tmp_path / "b.png") > 2
    assert colours(tmp_path / "c.png") == 1


@pytest.mark.parametrize("count", [1, 4])
def test_every_long_test_is_in_one_share(count):
    shares = [in_share([*range(10)], f"{k}/{count}") for k in range(count)]
    assert sorted(test for share in shares for test in share) == [*range(10)]
