"""The expected costs of a study's runs, by a few steps of one run of every kind."""

import json
import math
import time
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from checkpoints.checkpoint import write
from core.errors import UserError
from report.tables import markdown
from runners.pool import cores
from study.planning import RECORDING, Plan, PlannedRun, Study, flag_of_teachers
from study.status import DONE, describe_run, is_done, read_status, states

if TYPE_CHECKING:
    from training.loop import Fit

SAME_COST = (  # flags that hardly change the cost of a run
    "seed", "data_seed", "cr", "ordering", "type_dist", "loss_distill", "alpha", "beta", "gamma",
    "subset_seed", "teacher", "shuffle_teacher", "lr", "data_root", "init_student",
)  # fmt: skip
STEPS = 3  # that are timed, after one that is not
FORWARD = 1 / 3  # of the cost of a step: a batch without a gradient


def kind_of(plan: Plan, run: PlannedRun) -> str:
    """What runs of the same cost have in common."""
    flags = {name: value for name, value in run.flags.items() if name not in SAME_COST}
    if not run.teachers:  # one that is not trained, such as total variation
        flags["teacher"] = run.flags.get("teacher")
    if len(run.teachers) > 1:
        flags["teachers"] = [kind_of(plan, plan.runs[key]) for key in run.teachers]
    if run.recording is not None:
        flags["frames"] = plan.runs[run.recording].flags.get("frames")
    return json.dumps([run.script, flags], sort_keys=True, default=str)


def estimate_seconds(study: Study, plan: Plan, threads: int) -> dict[str, float]:
    """Seconds of every run, from finished runs of its kind, or else from a few steps here."""
    import torch

    torch.set_num_threads(threads)
    finished: dict[str, list[float]] = {}
    for key, run in study.runs.items():
        if is_done(study, key):
            finished.setdefault(kind_of(plan, run), []).append(read_status(study, key)["seconds"])
    seconds = {kind: median(values) for kind, values in finished.items()}
    with TemporaryDirectory() as folder:
        for run in study.runs.values():
            if kind_of(plan, run) not in seconds:
                seconds[kind_of(plan, run)] = time_silently(plan, run, Path(folder))
    return {key: seconds[kind_of(plan, run)] for key, run in study.runs.items()}


def time_silently(plan: Plan, run: PlannedRun, folder: Path) -> float:
    """The same as `time_run` without its output, of which a refusal keeps the last line."""
    printed = StringIO()
    try:
        with redirect_stdout(StringIO()), redirect_stderr(printed):
            return time_run(plan, run, folder)
    except SystemExit as refusal:
        reason = printed.getvalue().strip().splitlines()[-1:]
        raise UserError(f"study, run {run.key}: {''.join(reason)}") from refusal


def time_run(plan: Plan, run: PlannedRun, folder: Path) -> float:
    """Seconds of a run by some of its steps, with an untrained teacher; nan without steps.

    Only training counts: what makes a recording, or scores another run's network, takes none.
    """
    from core import runtime

    if run.role == RECORDING or run.network is not None:
        return 0.0
    script = plan.load_script(run.script)
    flags = run.seeded_flags | {"results": str(folder / run.key)}
    untrained = (write_untrained(plan, plan.runs[key], folder) for key in run.teachers)
    flags |= flag_of_teachers(tuple(map(str, untrained)))
    if run.student:
        flags["init_student"] = str(write_untrained(plan, plan.runs[run.student], folder))
    if run.recording:
        flags |= record_there(plan, plan.runs[run.recording], folder)
        if flags.get("labels") != "oracle":
            del flags["truth"]
    if not hasattr(script, "prepare") or flags.get("labels") == "best":
        return math.nan
    args = script.parse(plan.parser(run.script).words_of(flags, "study"))
    fits, device = [], runtime.start(args.device)

    def keep(fits_of_teacher):  # instead of training a teacher that learns first
        fits.extend(fits_of_teacher)
        return [{"checkpoint": args.teacher}]

    first = {"train_teacher": keep} if run.recording else {}
    fits.append(script.prepare(args, device, **first))
    return sum(time_fit(fit) for fit in fits)


def time_fit(fit: "Fit") -> float:
    """Seconds of a training by some of its steps."""
    batches, times = fit.batches(0), []
    for _ in range(1 + STEPS):
        batch = next(batches)
        began = time.perf_counter()
        fit.step(batch)
        if fit.unread:
            fit.read()
        times.append(time.perf_counter() - began)
    validations = fit.total / (fit.args.val_every or fit.steps_per_epoch)
    return median(times[1:]) * (fit.total + validations * len(fit.val) * FORWARD)


def write_untrained(plan: Plan, run: PlannedRun, folder: Path) -> Path:
    """A teacher's checkpoint before its training."""
    from core import runtime

    path = folder / f"{run.key}.pth"
    if not path.is_file():
        script = plan.load_script(run.script)
        flags = run.seeded_flags | {"results": str(folder / f"{run.key}_fresh")}
        args = script.parse(plan.parser(run.script).words_of(flags, "study"))
        write(path, script.prepare(args, runtime.start(args.device)).content())
    return path


def record_there(plan: Plan, run: PlannedRun, folder: Path) -> dict[str, str]:
    """A recording in another folder, and its truth."""
    path = folder / f"{Path(run.key).name}.npz"
    if not path.is_file():
        script = plan.load_script(run.script)
        flags = run.flags | {"output": str(path)}
        words = plan.parser(run.script).words_of(flags, "study")
        script.main(script.parse(["simulate", *words]))
    return {"data_root": str(path), "truth": str(path.with_name(f"{path.stem}_truth.npz"))}


def print_costs(study: Study, plan: Plan, jobs: int) -> dict:
    """Prints the runs and their expected costs."""
    threads = max(1, len(cores()) // jobs)  # as every job has
    run_states, estimates = states(study), estimate_seconds(study, plan, threads)
    costs = {key: value for key, value in estimates.items() if not math.isnan(value)}
    rows = []
    for number, keys in enumerate(study.jobs):
        row = {
            "job": number,
            "": describe_run(study.runs[keys[0]]),
            "seeds": " ".join(str(study.runs[key].seed) for key in keys),
            "estimate (s)": None,
            "state": ", ".join(dict.fromkeys(run_states[key] for key in keys)),
        }
        if costs.keys() >= set(keys):
            row["estimate (s)"] = round(sum(costs[key] for key in keys), 1)
        rows.append(row)
    print(markdown(rows))
    left = [key for key in study.runs if run_states[key] != DONE]
    minutes = sum(costs.get(key, 0) for key in left) / 60
    parallel = minutes / min(jobs, len(study.jobs))
    unknown = sum(key not in costs for key in left)
    print(
        f"{len(study.runs)} runs in {len(study.jobs)} jobs, {len(left)} not done; "
        f"about {minutes:.1f} minutes of work, {parallel:.1f} with {jobs} jobs at a time"
        + (f", without {unknown} runs that cannot be timed beforehand" if unknown else "")
        + f"; results go to {study.folder}"
    )
    return {"runs": len(study.runs), "left": len(left), "minutes": minutes, "untimed": unknown}
