"""What runs.py does with runs: list, show, compare, export, delete and extend them."""

import shlex
import shutil
import sys
from argparse import Namespace
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from bookkeeping.selection import (
    SCORES,
    filtered,
    find_runs,
    ordered,
    state_of,
    table_of,
    value_of,
)
from cli.flags import with_command
from core.errors import UserError
from core.files import read_rows, table, write_text
from core.runs import RunRecord, differences, runs_of
from parsing.parser import read_settings
from report.tables import format_cell, latex, markdown

WARM_STARTS = {  # the flag of a script that begins with a run's weights
    "main_unet": "train_again",
    "main_unet_dist": "init_student",
}


def list_runs(args: Namespace) -> list[dict]:
    """One table of all runs of a results folder."""
    runs = filtered(runs_of(args.results), args.where)
    if not runs:
        print(f"{args.results} holds no such run" if args.where else f"{args.results} has no runs")
        return []
    rows = table_of(ordered(runs, args.sort)[: args.last], args.columns)
    print(markdown(rows))
    return rows


def show(args: Namespace) -> None:
    """What runs are: their command, scores, files, and flags that have a value."""
    for run in find_runs(args.results, args.runs):
        lines = {
            "run": str(run.folder),
            "state": state_of(run),
            "command": shlex.join(run.record.get("command", [])),
            "network": str(trained(run) or run.folder / "best.pth"),
        }
        lines |= {name: format_cell(value) for name, value in run.record.get("scores", {}).items()}
        print("\n".join(f"{name:<24}{value}" for name, value in lines.items()))
        flags = {name: value for name, value in run.identity.items() if value not in (None, False)}
        print(markdown([{"flag": name, "value": str(value)} for name, value in flags.items()]))


def trained(run: RunRecord) -> Path | None:
    """The exported file of a run that no other run replaces, where it is still there."""
    path = results_of(run) / "trained_models" / Path(run.kept).name
    return path if run.kept and path.is_file() else None


def compare(args: Namespace) -> list[dict]:
    """The flags in which runs differ beside their scores, and their curves in one figure."""
    runs = find_runs(args.results, args.runs)
    names = differences(runs)
    scores = [name for name in SCORES if any(value_of(run, name) is not None for run in runs)]
    rows = [
        {"": name} | {run.name: format_cell(value_of(run, name)) for run in runs}
        for name in [*names, *scores]
    ]
    print(markdown(rows))
    curves = {label_of(run, names): metrics_of(run) for run in runs}
    shown = [name for name in SCORES if any(name in rows[-1] for rows in curves.values() if rows)]
    if args.output and shown:
        from bookkeeping.figure import draw_comparison

        draw_comparison(
            {name: rows for name, rows in curves.items() if rows}, shown, Path(args.output)
        )
        print(f"curves in {args.output}")
    return rows


def label_of(run: RunRecord, names: list[str]) -> str:
    """A run in a legend: the flags in which it differs, where these are few."""
    text = ", ".join(f"{name} {format_cell(value_of(run, name))}" for name in names)
    return f"{text} ({run.name[-8:]})" if names and len(text) < 40 else run.name


def metrics_of(run: RunRecord) -> list[dict]:
    """The rows of a run's metrics.csv; none before its first validation."""
    path = run.folder / "metrics.csv"
    if not path.is_file():
        return []
    header, *lines = read_rows(path)
    return [
        {name: float(value) for name, value in zip(header, line, strict=True) if value}
        for line in lines
    ]


def export(args: Namespace) -> list[dict]:
    """A table of runs as a file: LaTeX, CSV or Markdown, by its ending."""
    runs = find_runs(args.results, args.runs) if args.runs else runs_of(args.results)
    rows = table_of(ordered(filtered(runs, args.where), args.sort)[: args.last], args.columns)
    if not rows:
        raise UserError(f"{args.results} holds no such run")
    text = {
        ".tex": lambda: latex(rows),
        ".csv": lambda: table(rows[0], rows),
        ".md": lambda: markdown(rows),
    }[Path(args.output).suffix]()
    write_text(Path(args.output), text.rstrip("\n") + "\n")
    print(f"{args.output}: {len(rows)} rows")
    return rows


def delete(args: Namespace) -> list[str]:
    """Removes run folders and the networks that they exported, after a question."""
    runs = find_runs(args.results, args.runs)
    root = Path(args.results).resolve()
    paths = []
    for run in runs:
        if state_of(run) == "running":
            raise UserError(f"{run.folder} is in use by another process: stop it first")
        folder = run.folder.resolve()
        if run.folder.is_symlink() or root not in folder.parents:
            raise UserError(f"{run.folder} lies outside of {args.results}: it is left as it is")
        # Runs of earlier versions share their file's name with others, and it is left to these.
        exported = trained(run) if "kept" in run.record else None
        paths += [folder] + ([exported.resolve()] if exported else [])
    paths = [path for path in dict.fromkeys(paths) if root in path.parents]
    print("\n".join(str(path) for path in paths))
    if not (args.yes or confirmed("delete these for good?")):
        print("nothing was deleted")
        return []
    for path in paths:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    print(f"{len(runs)} run{'s' * (len(runs) > 1)} deleted")
    return [run.name for run in runs]


def confirmed(question: str) -> bool:
    """Whether the user answers yes; no answer is a no."""
    if not sys.stdin or not sys.stdin.isatty():
        raise UserError("nobody can be asked here: --yes deletes without a question")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def extend(args: Namespace) -> dict:
    """A run that begins with the best weights of a finished one and trains it for longer."""
    (run,) = find_runs(args.results, args.runs)
    script, flags = continuation(run, args)
    unit, more = ("epochs", flags["epochs"]) if args.epochs else ("steps", flags["steps"])
    module = import_module(script)
    words = module.build_parser().words_of(flags, f"{run.folder / 'config.json'}")
    print(
        f"a run of its own: {run.name} for {more} {unit} more, from its best weights, "
        "with a new optimiser and learning rate schedule"
    )
    print(f"command     {shlex.join(['python', f'{script}.py', *words])}")
    return module.main(with_command(module.parse(words), script, words))


def continuation(run: RunRecord, args: Namespace) -> tuple[str, dict]:
    """The script and the flags that prolong a run."""
    if not run.finished:
        raise UserError(f"{run.name} is not finished: repeat its command to go on")
    script = Path((run.record.get("command") or ["an unknown script"])[0]).stem
    if script not in WARM_STARTS:
        raise UserError(
            f"{run.name} is of {script}: only runs of {' and '.join(WARM_STARTS)} can be extended"
        )
    flags = read_settings(str(run.folder / "config.json"), "config")
    unit, wanted = ("epochs", args.epochs) if args.epochs else ("steps", args.steps)
    done = flags.get(unit)
    if done is None:
        other = "steps" if unit == "epochs" else "epochs"
        raise UserError(f"{run.name} was trained for {flags.get(other)} {other}: give --{other}")
    if wanted <= done:
        raise UserError(f"{unit} {wanted}: {run.name} has {done} already, give more")
    warm = {WARM_STARTS[script]: str(run.folder / "best.pth"), "results": str(results_of(run))}
    return script, flags | {unit: wanted - done, "seeds": None} | warm


def results_of(run: RunRecord) -> Path:
    return run.folder.parents[1]


COMMANDS: dict[str, Callable] = {
    "list": list_runs,
    "show": show,
    "compare": compare,
    "export": export,
    "delete": delete,
    "extend": extend,
}
