"""The classroom: a student that measures little learns from a teacher that measured much.

Cells for a notebook or an editor; `python examples/classroom.py` runs them all from the
repository's folder.
"""

# %% A teacher that measures half of the values, and a student alone that measures a tenth
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the repository is not installed

import distillpool as dp

STEPS = 500
COMMON = {"width": 16, "batch_size": 32, "steps": STEPS, "val_every": STEPS // 2}

teacher = dp.train(cr=0.5, **COMMON)
alone = dp.train(cr=0.1, **COMMON)

# %% The same student, with the same budget, taught by the teacher
student = dp.distill(teacher=teacher, cr=0.1, type_dist="output", **COMMON)

# %% Test images: with the truth there, the teacher adds next to nothing
scores = dp.evaluate([alone, student])
for row in scores["rows"]:
    print(f"{row['estimate']:<40}{row['PSNR']:.2f} dB")

# %% What the student makes of one picture
import torch

network, physics = dp.load(student)
picture = torch.rand(1, 1, 32, 32)
restored = network(physics.observe(picture))
print(f"restored {tuple(restored.shape)} from {physics.m} values")

# %% The camera is a physics of deepinv: its algorithms work with it
import deepinv

camera = dp.physics(cr=0.25)
y = camera.A(picture)
prior, fidelity = deepinv.optim.TVPrior(n_it_max=20), deepinv.optim.L2()
steps = {"stepsize": 1.0, "lambda": 0.02}
for name in ("PGD", "ADMM"):
    algorithm = deepinv.optim.optim_builder(
        name, prior=prior, data_fidelity=fidelity, max_iter=30, params_algo=dict(steps)
    )
    print(f"deepinv's {name}: error {(algorithm(y, camera) - picture).square().mean():.4f}")
