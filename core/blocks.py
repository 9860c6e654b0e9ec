"""Large images as blocks of n x n pixels, and back."""

from torch import Tensor


def split_blocks(x: Tensor, n: int) -> Tensor:
    """Images (B, C, r n, s n) as their blocks (B r s, C, n, n), row by row."""
    x = x.unfold(2, n, n).unfold(3, n, n)  # (B, C, r, s, n, n)
    return x.movedim(1, 3).flatten(0, 2)


def assemble_blocks(parts: Tensor, rows: int, columns: int) -> Tensor:
    """Blocks (B r s, C, h, w), of whatever size, as images (B, C, r h, s w)."""
    x = parts.unflatten(0, (-1, rows, columns))  # (B, r, s, C, h, w)
    return x.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
