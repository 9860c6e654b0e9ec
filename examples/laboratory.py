"""The laboratory: scenes that were recorded once, without any truth.

Cells for a notebook or an editor; `python examples/laboratory.py` runs them all from the
repository's folder.
"""

# %% In simulation, under the light of the laboratory: a teacher and a student
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the repository is not installed

import acquire
import distillpool as dp

STEPS, FRAMES = 500, 200
COMMON = {"width": 16, "batch_size": 32, "steps": STEPS, "val_every": STEPS // 2}
LIGHT = {"dataset": "photos_without_text", "photons": 10}

teacher = dp.train(cr=0.5, **LIGHT, **COMMON)
student = dp.train(cr=0.1, **LIGHT, **COMMON)

# %% Other scenes, recorded once at 50 %; here they are simulated, and lab_truth.npz is their truth
words = f"simulate --dataset digits --cr 0.5 --photons 10 --frames {FRAMES} --test_frames 100"
acquire.main(acquire.parse([*words.split(), "--output", "lab.npz", "--overwrite"]))

# %% The student is adapted with the recording alone: no truth is read
adapted = dp.distill(
    teacher=teacher,
    init_student=student,
    dataset="recorded",
    data_root="lab.npz",
    cr=0.1,
    **COMMON,
)

# %% How much it gained, by the truth that a laboratory does not have
test = {"dataset": "recorded", "data_root": "lab.npz", "truth": "lab_truth.npz"}
before, after = dp.evaluate(student, **test), dp.evaluate(adapted, **test)
print(f"not adapted {before['psnr']:.2f} dB, adapted {after['psnr']:.2f} dB")
