"""The files of a study's runs: their states, scores and baselines."""

import csv
import json
from collections.abc import Iterable
from pathlib import Path

from core.errors import UserError
from core.files import lock, significant, write_csv, write_text
from report.tables import markdown
from study.planning import RECORDING, PlannedRun, Study
from study.question import format_setting

DONE, FAILED, RUNNING = "done", "failed", "running"
LOCK = ".job.lock"


def read_status(study: Study, key: str) -> dict:
    """The status file of a run, or nothing where the run has not begun."""
    try:
        return json.loads((study.folder / key / "status.json").read_text())
    except (OSError, ValueError):
        return {}


def write_status(study: Study, key: str, state: str, **more) -> None:
    folder = study.folder / key
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "status.json", json.dumps({"state": state, **more}, indent=1) + "\n")


def is_done(study: Study, key: str) -> bool:
    """Whether a run is trained, still exists, and was scored on the test images of the study."""
    status = read_status(study, key)
    if study.runs[key].role == RECORDING:
        files = [study.folder / key / name for name in ("lab.npz", "lab_truth.npz")]
        return status.get("state") == DONE and all(file.is_file() for file in files)
    scored_on = (status.get("limit_test"), status.get("test", {}))
    if status.get("state") != DONE or scored_on != (study.limit_test, study.test):
        return False
    if "run" not in read_status(study, study.runs[key].network or key):
        return False
    checkpoint = run_folder(study, key) / "best.pth"
    return checkpoint.is_file() and (study.folder / key / "scores.csv").is_file()


def run_folder(study: Study, key: str) -> Path:
    """The folder of a run that is done, also where the study's folder has been moved since.

    That of a run which scores another's network is the other's.
    """
    key = study.runs[key].network or key
    return study.folder / key / "runs" / Path(read_status(study, key)["run"]).name


def is_locked(study: Study, key: str) -> bool:
    """Whether a process works on a run."""
    if not (study.folder / key).is_dir():
        return False
    try:
        with lock(study.folder / key / LOCK):
            return False
    except UserError:
        return True


def state_of(study: Study, key: str) -> str:
    """The state of a run, from its files: done, running, interrupted, failed, or waiting."""
    if is_done(study, key):
        return DONE
    state = read_status(study, key).get("state", "")
    if state != FAILED and is_locked(study, key):
        return RUNNING
    return {RUNNING: "interrupted", FAILED: FAILED}.get(state, "waiting")


def states(study: Study) -> dict[str, str]:
    return {key: state_of(study, key) for key in study.runs}


# ---------------------------------------------------------------- scores


def write_scores(study: Study, key: str, rows: list[dict]) -> None:
    write_csv(study.folder / key / "scores.csv", rows)


def read_scores(path: Path) -> list[dict]:
    """A row for each test image."""
    with open(path, newline="") as file:
        return [
            {name: value if name == "image" else float(value) for name, value in row.items()}
            for row in csv.DictReader(file)
        ]


def write_held_out(study: Study, key: str, errors: list[float]) -> None:
    """The estimated squared errors of held-out frames."""
    rows = [{"squared_error": significant(error)} for error in errors]
    write_csv(study.folder / key / "held_out.csv", rows)


def read_held_out(study: Study, key: str) -> tuple[float, ...]:
    path = study.folder / key / "held_out.csv"
    rows = read_scores(path) if path.is_file() else []
    return tuple(row["squared_error"] for row in rows)


def metric_of(row: dict) -> str:
    """The compared score: PSNR in dB, or top-1 in per cent."""
    return "psnr" if "psnr" in row else "top1"


def write_baselines(study: Study, key: str, baselines: dict[str, list[dict]]) -> None:
    for name, rows in baselines.items():
        write_csv(study.folder / key / f"baseline_{name}.csv", rows)


def read_baselines(study: Study, key: str) -> dict[str, list[dict]]:
    """The scores of first images that need no training; older studies call them anchors."""
    status, folder = read_status(study, key), study.folder / key
    if "anchors" in status:
        return {name: read_scores(folder / f"anchor_{name}.csv") for name in status["anchors"]}
    names = status.get("baselines", [])
    return {name: read_scores(folder / f"baseline_{name}.csv") for name in names}


# ---------------------------------------------------------------- the study


def format_study(study: Study) -> str:
    """The text of a study file that plans the same runs."""
    import yaml

    return yaml.safe_dump(study.text, sort_keys=False, allow_unicode=True)


def write_study(study: Study) -> None:
    write_text(study.folder / "study.yml", format_study(study))


def describe_run(run: PlannedRun) -> str:
    """A run without its seed."""
    return ", ".join(filter(None, [run.role, format_setting(run.setting)]))


def failures(study: Study) -> dict[str, str]:
    """The runs that failed, and why."""
    return {
        key: read_status(study, key).get("error", "")
        for key, state in states(study).items()
        if state == FAILED
    }


def raise_failures(study: Study, keys: Iterable[str]) -> None:
    """Ends with the runs that failed, if there are any."""
    failed = {key: reason for key, reason in failures(study).items() if key in set(keys)}
    if failed:
        reasons = "; ".join(f"{key}: {reason}" for key, reason in list(failed.items())[:5])
        raise UserError(
            f"{len(failed)} of {len(study.runs)} runs failed ({reasons}): "
            "the same command tries them again"
        )


def print_states(study: Study) -> dict:
    """Prints the progress of the runs."""
    by_key = states(study)
    rows: dict[str, dict] = {}
    for key, state in by_key.items():
        name = describe_run(study.runs[key])
        row = rows.setdefault(name, {"": name})
        row[state] = row.get(state, 0) + 1
    print(markdown(list(rows.values())))
    for key, reason in failures(study).items():
        print(f"{key}: {reason}")
    every = list(by_key.values())
    counts = {state: every.count(state) for state in dict.fromkeys(every)}
    summary = ", ".join(f"{count} {state}" for state, count in counts.items())
    print(f"{summary} of {len(by_key)} runs in {len(study.jobs)} jobs")
    return counts
