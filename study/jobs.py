"""One job of a study: its runs are trained together, scored, and their states written."""

import json
import os
import platform
import statistics
import time
import traceback
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType

from cli.flags import with_command
from core.errors import Diverged, UserError, in_a_line
from core.files import lock
from core.inputs import check_data
from runners.pool import ELSEWHERE
from study.planning import RECORDING, Plan, PlannedRun, Study
from study.status import (
    DONE,
    FAILED,
    LOCK,
    RUNNING,
    describe_run,
    is_done,
    metric_of,
    read_scores,
    read_status,
    run_folder,
    state_of,
    write_baselines,
    write_held_out,
    write_scores,
    write_status,
)


def do_job(study: Study, plan: Plan, keys: list[str], wait: bool = False) -> dict[str, str]:
    """Trains and scores the runs of a job; returns the state of each.

    If they fail together each is tried alone. A run on which another process works is left to it,
    or with `wait` waited for.
    """
    with ExitStack() as locks:
        try:
            for key in sorted(keys):  # in one order, so that no two processes wait for each other
                locks.enter_context(lock(study.folder / key / LOCK, wait=wait))
        except UserError:
            return dict.fromkeys(keys, ELSEWHERE)
        left = [key for key in keys if not is_done(study, key)]
        failed = left and not try_runs(study, plan, left)
        if failed and len(left) > 1:
            for key in left:
                try_runs(study, plan, [key])
        return {key: DONE if is_done(study, key) else FAILED for key in keys}


def try_runs(study: Study, plan: Plan, keys: list[str]) -> bool:
    """Trains and scores runs, whose output goes to their log; whether this succeeded."""
    with (
        open(study.folder / keys[0] / "log.txt", "a") as log,
        redirect_stdout(log),
        redirect_stderr(log),
    ):
        try:
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            process = {"process": os.getpid(), "machine": platform.node(), "since": since}
            for key in keys:
                write_status(study, key, RUNNING, **process)
            train_and_score(study, plan, [study.runs[key] for key in keys])
            return True
        except (Exception, SystemExit) as error:  # whatever it is, the other runs go on
            expected = isinstance(error, UserError | Diverged | OSError)
            reason = str(error) if expected else f"{type(error).__name__}: {error}"
            traceback.print_exc()
            for key in keys:
                write_status(study, key, FAILED, error=reason)
            return False


def train_and_score(study: Study, plan: Plan, runs: list[PlannedRun]) -> None:
    """Trains runs of one script, and writes the scores of every test image."""
    from core import runtime
    from preparation.choice import held_out_errors
    from study.scoring import score_baselines, score_run

    for run in runs:
        for role, key in run.needs:
            if not is_done(study, key):
                raise UserError(f"its {role} {key} is {state_of(study, key)}")
    script = plan.load_script(runs[0].script)
    commands = [plan.command_line(run) for run in runs]
    every_args = [with_command(script.parse(words), runs[0].script, words) for words in commands]
    if runs[0].role == RECORDING:
        record(study, script, runs, every_args)
        return
    if study.test:  # before hours are spent on the training
        check_data(study.test_arguments(every_args[0]))
    device = runtime.start(every_args[0].device)
    if runs[0].network is None:
        results = train_together(script, every_args, device)
    else:
        results = [use_network(study, run) for run in runs]
    scored = []
    for run, args, result in zip(runs, every_args, results, strict=True):
        checkpoint, baselines = Path(result["checkpoint"]), {}
        tested = study.test_arguments(args)
        rows, parameters = score_run(checkpoint, tested, study.limit_test, device)
        if run.role in ("alone", "trained") and run.seed == min(plan.seeds):
            simulated = plan.arguments(run.student) if run.student else args
            baselines = score_baselines(checkpoint, tested, simulated, study.limit_test, device)
        status = {
            "run": Path(result["run"]).name,
            "parameters": parameters,
            "seconds": round(result["seconds"], 2),
            "limit_test": study.limit_test,
            "test": study.test,
            "baselines": list(baselines),
        }
        if "val_recorded_error" in result:
            write_held_out(study, run.key, held_out_errors([checkpoint], args, device)[0])
        scored.append((run.key, rows, baselines, status))
    for key, rows, baselines, status in scored:
        write_baselines(study, key, baselines)
        write_scores(study, key, rows)
        write_status(study, key, DONE, **status)


def record(study: Study, script: ModuleType, runs: list[PlannedRun], every_args: list) -> None:
    """Makes recordings, each in its run's folder."""
    for run, args in zip(runs, every_args, strict=True):
        began = time.perf_counter()
        result = script.main(args)
        seconds = round(time.perf_counter() - began, 2)
        write_status(study, run.key, DONE, seconds=seconds, digest=result["digest"])


def use_network(study: Study, run: PlannedRun) -> dict:
    """What a training would return, for a run that scores the network of another one."""
    folder = run_folder(study, run.key)
    return {"checkpoint": str(folder / "best.pth"), "run": str(folder), "seconds": 0.0}


def seconds_of(result: dict) -> float:
    """Of a training from its validations, and of a ladder those of all rungs."""
    if "rungs" in result:
        return sum(map(seconds_of, result["rungs"]))
    metrics = Path(result["run"]) / "metrics.json"
    if not metrics.is_file():
        return 0.0  # of a run that is the best of several others
    return sum(row["seconds"] for row in json.loads(metrics.read_text()))


def train_together(script: ModuleType, every_args: list, device) -> list[dict]:
    """The results of runs of one script, trained together where the script can do so.

    Runs that are trained together share their seconds.
    """
    if not hasattr(script, "prepare") or getattr(every_args[0], "labels", None) == "best":
        results = [script.main(args) for args in every_args]
        return [result.get("rungs", [result])[-1] | timed(result, 1) for result in results]
    from preparation import setup

    results = setup.train_together(
        lambda args, companion: script.prepare(args, device, companion), every_args
    )
    return [result | timed(result, len(results)) for result in results]


def timed(result: dict, runs: int) -> dict[str, float]:
    """The seconds of one of so many runs that shared them."""
    return {"seconds": seconds_of(result) / runs}


class Progress:
    """Prints a line for every job that ends."""

    def __init__(self, study: Study, jobs: int):
        self.study, self.jobs, self.ended = study, jobs, 0
        self.began = time.perf_counter()

    def __call__(self, keys: list[str], result: dict[str, str]) -> None:
        self.ended += 1
        for key in keys:
            known = result[key] in (DONE, FAILED, ELSEWHERE) or is_done(self.study, key)
            if not known:  # a process that died could not write its status
                write_status(self.study, key, FAILED, error=result[key])
        done = [key for key in keys if result[key] == DONE]
        errors = {
            read_status(self.study, key).get("error") or result[key]: None
            for key in keys
            if key not in done
        }
        parts = [f"{len(done)} of {len(keys)} done"]
        scored = [key for key in done if self.study.runs[key].role != RECORDING]
        if scored:
            parts.append(f"mean score {statistics.mean(map(self.mean_score, scored)):.3f}")
        parts += [*errors, f"{time.perf_counter() - self.began:.0f} s"]
        name = describe_run(self.study.runs[keys[0]])
        line = f"[{self.ended}/{self.jobs}] {name}: {', '.join(parts)}"
        print(in_a_line(line), flush=True)

    def mean_score(self, key: str) -> float:
        rows = read_scores(self.study.folder / key / "scores.csv")
        return statistics.mean(row[metric_of(row)] for row in rows)
