"""Files of MATLAB 5, in which scipy takes the types of numbers as they are written, and crashes."""

import struct
import zlib
from pathlib import Path
from typing import BinaryIO

MATRIX, COMPRESSED = 14, 15
NUMBERS = (1, 2, 3, 4, 5, 6, 7, 9, 12, 13)  # types of stored numbers
NUMERIC = range(6, 16)  # classes of matrices, from double to uint64
COMPLEX, LOGICAL = 0x800, 0x200  # flags of a matrix
PIECE = 2**20  # bytes that are inflated or skipped at once


class Inflated:
    """A compressed element, which is inflated as far as it is read."""

    def __init__(self, packed: bytes):
        self.packed, self.inflate = packed, zlib.decompressobj()

    def read(self, count: int) -> bytes:
        content = self.inflate.decompress(self.packed, count)
        self.packed = self.inflate.unconsumed_tail
        return content


def check_types(path: Path) -> None:
    """Refuses matrices whose numbers are of a type that MATLAB does not have."""
    with open(path, "rb") as file:
        order = ">" if file.read(128).endswith(b"MI") else "<"
        while len(tag := file.read(8)) == 8:
            kind, size = struct.unpack(f"{order}II", tag)
            end = file.tell() + size
            if kind == COMPRESSED:
                inside = Inflated(file.read(size))
                inside.read(8)  # the tag of the matrix
                check_matrix(inside, order)
            elif kind == MATRIX:
                check_matrix(file, order)
            file.seek(end)


def check_matrix(stream: BinaryIO | Inflated, order: str) -> None:
    """Refuses parts of a matrix of numbers; one that is cut off is left to scipy."""
    flags = stream.read(16)
    if len(flags) < 16:
        return
    flags = struct.unpack(f"{order}4I", flags)[2]
    if flags & 0xFF not in NUMERIC:
        if flags & LOGICAL:
            raise ValueError(f"it has logical values of class {flags & 0xFF}, which are no numbers")
        return
    parts = ["size", "name", "real", *(["imaginary"] if flags & COMPLEX else [])]
    for part in parts:
        tag = stream.read(8)
        if len(tag) < 8:
            return
        kind, size = struct.unpack(f"{order}II", tag)
        small = kind >> 16  # bytes that are in the tag itself
        kind &= 0xFFFF if small else 0xFFFFFFFF
        if part in ("real", "imaginary") and kind not in NUMBERS:
            raise ValueError(f"its numbers are of type {kind}, which there is not")
        if part != parts[-1]:
            skip(stream, 0 if small else size + -size % 8)


def skip(stream: BinaryIO | Inflated, count: int) -> None:
    while count and (some := stream.read(min(count, PIECE))):
        count -= len(some)
