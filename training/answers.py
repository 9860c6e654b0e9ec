"""Answers of a slow teacher on disk, so that it is asked once about an image."""

import hashlib
import inspect
import sqlite3
import sys
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.errors import UserError
from core.runtime import full_precision
from models import measured
from models.base import Restorer

WAIT = 60  # seconds, for another process that writes


def identity_of(network: Restorer) -> str:
    """A digest of all that determines the answers of a teacher: its code, settings and weights."""
    digest = hashlib.sha256(f"{type(network).__name__} in {torch.float32}".encode())
    own = {type(part).__module__ for part in network.modules()} | {measured.__name__}
    for name in sorted(name for name in own if not name.startswith("torch.")):
        digest.update(inspect.getsource(sys.modules[name]).encode())
    settings = {k: v for k, v in vars(network).items() if isinstance(v, int | float | str)}
    digest.update(repr(sorted(settings.items())).encode())
    for name, weight in sorted(network.state_dict().items()):
        digest.update(name.encode() + weight.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


class Answers:
    """Images on disk by the digest of what they answer; a damaged one is as if it were not there.

    Several processes may read and write at once. Beyond `most` bytes nothing more is kept.
    """

    def __init__(self, path: Path, most: float):
        self.path, self.most = path, most
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.base = self.open()
        except sqlite3.OperationalError as error:
            raise UserError(f"answers {path}: {error}; --answers 0 keeps none") from None
        except sqlite3.DatabaseError:  # a damaged file is begun anew
            path.unlink()
            self.base = self.open()

    def open(self) -> sqlite3.Connection:
        base = sqlite3.connect(self.path, timeout=WAIT, isolation_level=None)
        # A killed process damages nothing; what a power failure damages is found by its checksum.
        base.execute("pragma synchronous = off")
        base.execute("create table if not exists answers (key blob primary key, image blob)")
        return base

    def get(self, keys: list[bytes]) -> dict[bytes, np.ndarray]:
        """The images of those keys that are there, flat."""
        marks = ", ".join("?" * len(keys))
        found = {}
        with suppress(sqlite3.DatabaseError):
            query = f"select key, image from answers where key in ({marks})"
            for key, stored in self.base.execute(query, keys):
                data, check = stored[:-4], stored[-4:]
                if zlib.crc32(data, zlib.crc32(key)).to_bytes(4, "big") == check:
                    found[key] = np.frombuffer(data, dtype=np.float32)
        return found

    def put(self, images: dict[bytes, np.ndarray]) -> None:
        """Keeps images, while there is room; a disk that refuses costs nothing but time."""
        size = self.path.stat().st_size if self.path.exists() else 0
        if size + sum(image.nbytes for image in images.values()) > self.most:
            return
        rows = []
        for key, image in images.items():
            data = image.tobytes()
            rows.append((key, data + zlib.crc32(data, zlib.crc32(key)).to_bytes(4, "big")))
        with suppress(sqlite3.DatabaseError):
            self.base.execute("begin immediate")
            try:
                self.base.executemany("insert or replace into answers values (?, ?)", rows)
                self.base.execute("commit")
            except sqlite3.DatabaseError:
                with suppress(sqlite3.DatabaseError):
                    self.base.execute("rollback")


class Remembered(Restorer):
    """A teacher that is not trained, whose answers are kept on disk; it has one layer.

    It answers in full precision, so that a run with --amp leaves nothing else to one without.
    """

    reads_measurements = True

    def __init__(self, network: Restorer, folder: Path, most: float):
        super().__init__(network.c)
        self.network = network
        self.answers = Answers(folder / f"{identity_of(network)}.sqlite", most)
        self.computed = 0  # images, of those that were asked about

    @torch.no_grad()
    def features(self, x: Tensor) -> dict[str, Tensor]:
        shape = (self.c, *x.shape[-2:])
        inputs = x.detach().float().cpu().contiguous().numpy()
        keys = [hashlib.blake2b(one.tobytes(), digest_size=16).digest() for one in inputs]
        found = self.answers.get(keys)
        missing = [i for i, key in enumerate(keys) if key not in found]
        self.computed += len(missing)
        if missing:
            with full_precision(x):
                images = self.network(x[missing].float()).cpu().numpy()
            new = {keys[i]: image.ravel() for i, image in zip(missing, images, strict=True)}
            self.answers.put(new)
            found |= new
        image = torch.from_numpy(np.stack([found[key].reshape(shape) for key in keys]))
        return {"output": image.to(x.device)}
