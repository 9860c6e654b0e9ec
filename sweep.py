"""Train every setting of a grid with several seeds and its controls, and report the gains."""

from argparse import ArgumentTypeError
from pathlib import Path
from types import ModuleType
from typing import Any

from cli import flags


def build_parser() -> flags.Parser:
    parser = flags.Parser(__doc__)
    parser.add_argument(
        "study",
        nargs="?",
        metavar="STUDY.yml",
        help="the study; the flags below change it, or describe one without a file",
    )
    group = parser.add_argument_group("study")
    group.add_argument(
        "--tiny", action="store_true", help="take the study's section 'tiny', which takes minutes"
    )
    group.add_argument("--script", help="the training script (default: main_unet_dist.py)")
    values: dict[str, Any] = {
        "type": flags.assignment,
        "nargs": "+",
        "action": "extend",
        "default": [],
        "metavar": "NAME=VALUE",
    }
    several_values: dict[str, Any] = values | {"metavar": "NAME=VALUE,VALUE,..."}
    group.add_argument(
        "--vary",
        **several_values,
        help="flags of the student that vary, and their values",
    )
    group.add_argument("--fixed", **values, help="flags that all runs share")
    group.add_argument(
        "--teacher",
        **values,
        help="flags of the teacher's training besides the shared ones; 'same': the student's value",
    )
    group.add_argument(
        "--student",
        **values,
        help="flags of the student's training in simulation, before it is adapted to recordings",
    )
    group.add_argument(
        "--recording",
        **several_values,
        help="flags of acquire.py simulate, which makes the recordings; several values vary",
    )
    seeds: dict[str, Any] = {"type": flags.natural, "nargs": "+", "action": flags.Distinct}
    group.add_argument("--seeds", **seeds, help="seeds of the students")
    group.add_argument(
        "--shuffled",
        help="settings with a shuffled control: every, none, or a flag (one for each value)",
    )
    group.add_argument(
        "--limit_test",
        type=flags.counting,
        help="use only so many test images, a fixed random subset",
    )
    group.add_argument(
        "--name",
        type=flags.name,
        help="name of the folder in results/sweeps (default: the study file's)",
    )
    group = parser.add_argument_group("run")
    group.add_argument(
        "--jobs",
        type=flags.counting,
        help="processes at a time (default: one a GPU, or one a core without GPUs)",
    )
    flags.add_device(parser, group)
    flags.add_results(parser, group)
    flags.add_cluster(parser)
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="list the runs with their expected costs, or print the cluster's script, and stop",
    )
    group = parser.add_argument_group("instead of training").add_mutually_exclusive_group()
    group.add_argument("--status", action="store_true", help="print the progress of the runs")
    group.add_argument("--collect", action="store_true", help="report the finished runs")
    group.add_argument(
        "--task",
        type=flags.natural,
        metavar="K",
        help="do only the job of this number, in this process",
    )
    return parser


def parse(argv=None):
    parser = build_parser()
    args = parser.parse_args(argv)
    actions = [f"--{flag}" for flag in ("status", "collect") if getattr(args, flag)]
    actions += ["--task"] * (args.task is not None)
    if actions and (args.cluster or args.dry_run):
        other = "--cluster" if args.cluster else "--dry_run"
        parser.error(f"{actions[0]} does not go with {other}: give one of them")
    if args.study and not args.name:
        try:
            flags.name(Path(args.study).stem)
        except ArgumentTypeError as error:
            parser.error(f"study {args.study}: {error}; give --name")
    if not (args.study or args.vary or args.fixed):
        parser.error("which study? give STUDY.yml, or describe one with --vary and --fixed")
    args.text = parser.settings_in(args.study, f"study {args.study}") if args.study else {}
    if "parts" in args.text:
        refuse_changes(parser, args)
    return args


def refuse_changes(parser, args) -> None:
    """An atlas takes its studies as they are, one after the other."""
    changing = ("script", "vary", "fixed", "teacher", "student", "recording", "seeds", "shuffled")
    for flag in (*changing, "limit_test", "name", "cluster", "task"):
        if getattr(args, flag) not in (None, []):
            parser.error(
                f"--{flag}: {args.study} is an atlas of several studies, which it takes as they "
                "are; give this flag with one of them"
            )


def build_plan(args):
    """The study that the flags describe, and the plan behind it."""
    from study import planning, question

    text = question.apply_flags(question.resolve_tiny(args.text, args.tiny), args)
    name = args.name
    if not name:
        name = (Path(args.study).stem if args.study else "study") + "_tiny" * args.tiny
    shared = {} if args.device == "auto" else {"device": args.device}
    results, check = Path(args.results), not args.status
    made = getattr(args, "made", None)  # as the process found them that gives jobs to this one
    return planning.build_study(text, name, results, load_script, shared, check, made)


def load_script(name: str) -> ModuleType:
    """A script: one that trains, makes recordings, or scores."""
    from importlib import import_module

    return import_module(name)


def serve(pipe, place, args) -> None:
    """A process of its own that does jobs."""
    from runners import pool
    from study import jobs

    pool.take_place(place if args.device == "auto" else place | {"gpu": None})
    study, plan = build_plan(args)
    pool.serve_jobs(pipe, lambda keys, wait: jobs.do_job(study, plan, keys, wait))


def main(args) -> dict:
    if "parts" in args.text:
        return answer_atlas(args)
    return answer_study(args)


def answer_atlas(args) -> dict:
    """Every study of an atlas, and what they say together."""
    import argparse

    from core.errors import UserError
    from findings.atlas import check_rows, write_atlas
    from study.parts import parts_of

    name = Path(args.study).stem + "_tiny" * args.tiny
    question = str(args.text.get("question") or f"Atlas {name}")
    own_args, parts, failed, results = {}, [], [], []
    for part in parts_of(args.text, args.study, args.tiny):
        changes = {"study": str(part.path), "text": part.text, "name": part.name, "tiny": False}
        own_args[part.name] = argparse.Namespace(**vars(args) | changes)
        parts.append((part, build_plan(own_args[part.name])[0]))
    check_rows(parts)  # before hours are spent
    for study, own in own_args.items():
        print(f"\n{study}: {own.text.get('question', '')}", flush=True)
        try:
            results.append(answer_study(own))
        except UserError as error:  # of its runs: the other studies go on
            print(f"sweep.py: {error}")
            failed.append(f"{study}: {error}")
    if args.status:
        return {}
    if args.dry_run:
        result = print_hours(results, len(own_args))
    else:
        result = write_atlas(question, parts, Path(args.results) / "sweeps" / name)
    if failed and not args.collect:
        raise UserError(f"{len(failed)} of {len(own_args)} studies failed: {'; '.join(failed)}")
    return result


def print_hours(costs: list[dict], count: int) -> dict:
    """What the studies of an atlas are expected to take, of which some may have failed."""
    runs, left, minutes, untimed = (
        sum(cost[name] for cost in costs) for name in ("runs", "left", "minutes", "untimed")
    )
    more = f", and {untimed} runs that cannot be timed beforehand" if untimed else ""
    print(
        f"\n{len(costs)} of {count} studies: {runs:,} runs, {left:,} not done; "
        f"about {minutes / 60:.1f} hours of work{more}"
    )
    return {"runs": runs, "minutes": minutes}


def answer_study(args) -> dict:
    study, plan = build_plan(args)
    if args.cluster:
        return queue(args, study)
    if args.task is not None:
        do_task(args, study, plan)
        return {}
    if args.status:  # without the libraries of the report
        from study.status import print_states

        return print_states(study)
    if args.dry_run:
        from runners.pool import default_jobs
        from study.costs import print_costs

        return print_costs(study, plan, args.jobs or default_jobs())
    if not args.collect:
        train(args, study, plan)
    from findings.report import write_report

    return write_report(study, plan)


def queue(args, study) -> dict:
    """Queues the jobs that are not done on a cluster; each calls this script with --task."""
    import hashlib
    import sys

    from core.files import write_text
    from runners import cluster
    from study.status import format_study, is_done, write_study

    # A copy of the study for the queued jobs: their numbers belong to this text, whatever the
    # study becomes in the meantime.
    text = format_study(study)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    path = study.folder / f"queued_{digest}.yml"
    command = [sys.executable, str(Path(__file__).resolve()), str(path.resolve())]
    command += ["--name", study.name, "--results", args.results, "--device", args.device]
    resources = cluster.resources_of(args)
    script = cluster.build_script(args.cluster, study.name, command, resources, study.folder)
    if args.dry_run:
        print(script)
        return {}
    write_study(study)
    write_text(path, text)
    left = [
        number
        for number, keys in enumerate(study.jobs)
        if not all(is_done(study, key) for key in keys)
    ]
    teachers = [number for number in left if number < study.teacher_jobs]
    others = [number for number in left if number >= study.teacher_jobs]
    ids = cluster.submit(args.cluster, script, study.folder, (teachers, others), args.jobs)
    print(
        f"{len(left)} of {len(study.jobs)} jobs are queued{' as ' * bool(ids)}{' and '.join(ids)}; "
        "--status prints their progress, --collect reports the results"
    )
    return {"ids": ids}


def do_task(args, study, plan) -> None:
    """Does the job of a number in this process."""
    from study.jobs import Progress, do_job
    from study.status import raise_failures, write_study

    if args.task >= len(study.jobs):
        raise flags.UserError(f"task {args.task}: the study has jobs 0 to {len(study.jobs) - 1}")
    write_study(study)
    keys = study.jobs[args.task]
    Progress(study, 1)(keys, do_job(study, plan, keys))
    raise_failures(study, keys)


def train(args, study, plan) -> None:
    """Does the jobs that are not done: first those of teachers, and all else that others need."""
    from runners.pool import Pool, default_jobs
    from study.jobs import Progress
    from study.status import is_done, write_study

    write_study(study)
    left = [keys for keys in study.jobs if not all(is_done(study, key) for key in keys)]
    print(
        f"{study.name}: {len(study.runs)} runs in {len(study.jobs)} jobs, "
        f"{len(left)} of them to do",
        flush=True,
    )
    first = [keys for keys in study.jobs[: study.teacher_jobs] if keys in left]
    progress = Progress(study, len(left))
    count = min(args.jobs or default_jobs(), max(1, len(left)))
    args.made = plan.made
    with Pool(count, serve, (args,)) as pool:
        pool.run(first, progress)
        pool.run([keys for keys in left if keys not in first], progress)


if __name__ == "__main__":
    flags.run(parse, main)
