"""Digits that a real single-pixel camera recorded, for classifiers of what its detector measured.

The camera is not linear: a scene gives 40 photocurrents, each from another crystal. A picture has
three channels: the scene as it was programmed, and its linear estimates from all photocurrents and
from the first ten. A physics shows a network one of them.

The recordings are those of github.com/mbthomas1124/single-pixel-imaging (MIT), which you pack into
one .npz for --data_root: `images` (N, 28, 28) and `images_id`, and for every session S the arrays
`S_y` (M, 40), `S_digit` and `S_image`, the id of what was shown. No scene is in two splits.
"""

import numpy as np
from deepinv.physics import LinearPhysics
from sklearn.linear_model import RidgeCV

SESSIONS = ("exp_july17", "exp_july23", "exp_july31", "exp_aug1")
FEW = 10  # photocurrents of the third channel
STRENGTHS = np.logspace(-1, 4, 11)  # of the ridge regression, chosen by leaving one recording out


def recordings(data_root, n):
    """Pictures (N, n, n, 3) and digits of every split; only training scenes are fitted to."""
    with np.load(data_root) as file:
        scenes = dict(zip(file["images_id"].tolist(), file["images"], strict=True))
        ids, digits, currents = [], [], []
        for session in SESSIONS:
            known = np.isin(file[f"{session}_image"], file["images_id"])
            values, shown = np.log(file[f"{session}_y"][known]), file[f"{session}_image"][known]
            seen = values[splits_of(shown)["train"]]
            ids += shown.tolist()
            digits += file[f"{session}_digit"][known].tolist()
            currents.append((values - seen.mean(0)) / seen.std(0))  # the light of the session
    y, splits = np.concatenate(currents), splits_of(np.array(ids))
    images, train = np.stack([shrink(scenes[i], n) for i in ids]), splits["train"]
    channels = [images]
    for count in (y.shape[1], FEW):
        fit = RidgeCV(STRENGTHS).fit(y[train, :count], flat(images[train]))
        channels.append(fit.predict(y[:, :count]).reshape(images.shape).clip(0, 1))
    pictures = np.stack(channels, axis=-1).astype(np.float32)
    made = {f"x_{split}": pictures[chosen] for split, chosen in splits.items()}
    labels = {f"y_{split}": np.array(digits)[chosen] for split, chosen in splits.items()}
    return made | labels


def splits_of(ids):
    """Which recordings are in which split, by the last figure of the scene's number."""
    last = ids % 10
    return {"train": last > 2, "val": last == 2, "test": last < 2}


def shrink(scene, n):
    """A scene of 28 x 28 bytes with two dark pixels around it, as n x n means in [0, 1]."""
    side = 32 // n
    return np.pad(scene / 255, 2).reshape(n, side, n, side).mean((1, 3))


def flat(images):
    return images.reshape(len(images), -1)


def shown_scene(n):
    """A teacher that sees the scene."""
    return channel(0)


def all_currents(n):
    return channel(1)


def few_currents(n):
    return channel(2)


def channel(k):
    """A camera that sees one channel of a picture; what it sees lies where it was."""

    def keep(x, **_):
        kept = x * 0
        kept[:, k] = x[:, k]
        return kept

    return LinearPhysics(A=keep, A_adjoint=keep)
