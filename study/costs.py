"""What the runs of a study may cost, by a few steps of one run of every kind."""

import json
import time
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from study.planning import Plan, Planned, Study
from study.workers import is_done, status_of
from training.checkpoint import write

CHEAP = (
    "seed",
    "data_seed",
    "cr",
    "ordering",
    "type_dist",
    "loss_distill",
    "alpha",
    "beta",
    "gamma",
    "teacher",
    "shuffle_teacher",
    "lr",
)
STEPS = 3  # that are timed, after one that is not


def kind_of(run: Planned) -> str:
    """Runs of which one kind are taken to cost the same."""
    return json.dumps(
        [run.script, {name: value for name, value in run.flags.items() if name not in CHEAP}],
        sort_keys=True,
        default=str,
    )


def estimate(study: Study, plan: Plan) -> dict[str, float]:
    """Seconds of every run: what runs of its kind took, or else what a few of its steps take here."""
    taken: dict[str, list[float]] = {}
    for key, run in study.runs.items():
        if is_done(study, key):
            taken.setdefault(kind_of(run), []).append(status_of(study, key)["seconds"])
    known = {kind: median(values) for kind, values in taken.items()}
    with TemporaryDirectory() as folder:
        for run in study.runs.values():
            if kind_of(run) not in known:
                with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                    known[kind_of(run)] = timed(plan, run, Path(folder))
    return {key: known[kind_of(run)] for key, run in study.runs.items()}


def timed(plan: Plan, run: Planned, folder: Path) -> float:
    """Seconds of a run by some of its steps; the teacher is one that has learnt nothing."""
    from core import runtime

    script = plan.script_of(run.script)
    flags = run.flags | {"results": str(folder / run.key)}
    if run.teacher:
        flags["teacher"] = str(untaught(plan, plan.runs[run.teacher], folder))
    if not hasattr(script, "prepare"):
        return float("nan")
    args = script.parse(plan.parser(run.script).words_of(flags, "study"))
    fit = script.prepare(args, runtime.start(args.device))
    batches, times = fit.batches(0), []
    for _ in range(1 + STEPS):
        batch = next(batches)
        began = time.perf_counter()
        fit.step(batch)
        if fit.unread:
            fit.read()
        times.append(time.perf_counter() - began)
    validations = fit.total / (args.val_every or fit.steps_per_epoch)
    return median(times[1:]) * (
        fit.total + validations * len(fit.val) / 3
    )  # without a gradient a batch costs a third


def untaught(plan: Plan, run: Planned, folder: Path) -> Path:
    """A teacher's checkpoint before its training."""
    from core import runtime

    path = folder / f"{run.key}.pth"
    if not path.is_file():
        script = plan.script_of(run.script)
        args = script.parse(
            plan.parser(run.script).words_of(
                run.flags | {"results": str(folder / f"{run.key}_fresh")}, "study"
            )
        )
        write(path, script.prepare(args, runtime.start(args.device)).content())
    return path
