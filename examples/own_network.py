"""Your own network and loss, from a file of yours, and arrays of your own.

Cells for a notebook or an editor; `python examples/own_network.py` runs them all from the
repository's folder.
"""

# %% Images of your own: any array (images, n, n) in [0, 1]
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the repository is not installed

import numpy as np

import distillpool as dp

STEPS = 500
HERE = Path(__file__).parent
y, x = np.mgrid[-1:1:32j, -1:1:32j]
centres = np.random.default_rng(0).uniform(-0.5, 0.5, (400, 2, 1, 1))
images = ((x - centres[:, 0]) ** 2 + (y - centres[:, 1]) ** 2 < 0.2).astype("float32")
np.save("discs.npy", images)

# %% A network of yours (examples/my.py), with an argument of its constructor
OWN = {"network": f"{HERE / 'my.py'}:MyNet", "set": {"width": 16}, "layers": {"latent": "body.2"}}
DATA = {"dataset": "array", "data_root": "discs.npy", "n": 32, "batch_size": 16, "steps": STEPS}
teacher = dp.train(cr=0.5, **OWN, **DATA)

# %% It teaches another of the kind by your own loss, on a layer that you named
student = dp.distill(
    teacher=teacher,
    cr=0.1,
    type_dist="output_latent",
    loss_distill=f"{HERE / 'my.py'}:my_loss:0.3",
    **OWN,
    **DATA,
)

# %% Its scores, and the network itself
test = {"dataset": "array", "data_root": "discs.npy", "code": HERE / "my.py"}
print(f"{dp.evaluate(student, **test)['psnr']:.2f} dB on test images")
network, physics = dp.load(student)
print(f"{sum(weight.numel() for weight in network.parameters()):,} parameters")
