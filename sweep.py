"""A study: every setting of a grid, with several seeds and its controls, trained once, and a report of what can be said of it."""

from argparse import ArgumentTypeError
from pathlib import Path

from cli import flags


def build_parser() -> flags.Parser:
    parser = flags.Parser(__doc__)
    parser.add_argument(
        "study",
        nargs="?",
        metavar="STUDY.yml",
        help="what is asked; the flags below add to it, or make it up",
    )
    group = parser.add_argument_group("the question")
    group.add_argument(
        "--tiny", action="store_true", help="its section of that name, which is done in minutes"
    )
    group.add_argument("--script", help="the training script (main_unet_dist.py without it)")
    values = {
        "type": flags.assignment,
        "nargs": "+",
        "action": "extend",
        "default": [],
        "metavar": "NAME=VALUE",
    }
    group.add_argument(
        "--vary",
        **values | {"metavar": "NAME=VALUE,VALUE,..."},
        help="flags of the student that vary, and how",
    )
    group.add_argument("--fixed", **values, help="flags that all runs share")
    group.add_argument(
        "--teacher",
        **values,
        help="flags of the teacher's training, beside the shared ones; 'same' is the student's value",
    )
    seeds = {"type": flags.natural, "nargs": "+", "action": flags.Distinct}
    group.add_argument("--seeds", **seeds, help="of the students")
    group.add_argument(
        "--shuffled",
        help="settings with a shuffled teacher beside them: every, none, or a flag, once for each of its values",
    )
    group.add_argument(
        "--limit_test",
        type=flags.counting,
        help="use only so many test images, a fixed random subset",
    )
    group.add_argument(
        "--name", type=flags.name, help="of the folder in results/sweeps; the study's without it"
    )
    group = parser.add_argument_group("how")
    group.add_argument(
        "--jobs",
        type=flags.counting,
        help="processes at a time; one a GPU, else one a core, without it",
    )
    flags.add_device(parser, group)
    flags.add_results(parser, group)
    flags.add_cluster(parser)
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="list the runs with what they may cost, or print a cluster's script, and stop",
    )
    group = parser.add_argument_group("instead of the work").add_mutually_exclusive_group()
    group.add_argument("--status", action="store_true", help="how far the runs are")
    group.add_argument("--collect", action="store_true", help="the report of what is finished")
    group.add_argument(
        "--task",
        type=flags.natural,
        metavar="K",
        help="do the job of this number alone, in this process",
    )
    return parser


def parse(argv=None):
    parser = build_parser()
    args = parser.parse_args(argv)
    work = [f"--{flag}" for flag in ("status", "collect") if getattr(args, flag)] + ["--task"] * (
        args.task is not None
    )
    if work and (args.cluster or args.dry_run):
        parser.error(
            f"{work[0]} does not go with {'--cluster' if args.cluster else '--dry_run'}: each is all that is done"
        )
    if args.study and not args.name:
        try:
            flags.name(Path(args.study).stem)
        except ArgumentTypeError as error:
            parser.error(f"study {args.study}: {error}; give --name")
    if not (args.study or args.vary or args.fixed):
        parser.error("which study? give STUDY.yml, or make one up by --vary and --fixed")
    args.text = parser.settings_in(args.study, f"study {args.study}") if args.study else {}
    return args


def planned(args):
    """The study that the flags describe, and the plan behind it."""
    from study import planning

    text = planning.changed(planning.resolved(args.text, args.tiny), args)
    name = args.name or (Path(args.study).stem if args.study else "study") + (
        "_tiny" if args.tiny else ""
    )
    more = {} if args.device == "auto" else {"device": args.device}
    return planning.build(text, name, Path(args.results), script_of, more, check=not args.status)


def script_of(name: str):
    """A training script."""
    from importlib import import_module

    if name not in flags.TRAINING:
        raise flags.UserError(
            f"study: unknown script '{name}': choose from {', '.join(f'{script}.py' for script in flags.TRAINING)}"
        )
    return import_module(name)


def serve(pipe, place, args) -> None:
    """A process of its own that does jobs."""
    from study import workers

    workers.settle(place if args.device == "auto" else place | {"gpu": None})
    study, plan = planned(args)
    workers.serve(pipe, lambda keys, patient: workers.do(study, plan, keys, patient))


def main(args) -> dict:
    from study import workers

    study, plan = planned(args)
    if args.cluster:
        return queue(args, study)
    if args.task is not None:
        do_one(args, study, plan)
        return {}
    if args.status:  # without the libraries of the report
        return workers.tell_states(study)
    if not (args.dry_run or args.collect):
        work(args, study)
    from study import report

    if args.dry_run:
        return report.tell_costs(study, plan, args.jobs or workers.default_jobs())
    return report.tell(study, plan)


def queue(args, study) -> dict:
    """Hands the jobs that are not done to a cluster's scheduler; each is a call of this script with --task."""
    import hashlib
    import sys

    from core.files import write_text
    from study import cluster, workers

    asked = workers.asked(
        study
    )  # a file of its own: numbers of queued jobs count in this question, whatever is asked here next
    path = study.folder / f"queued_{hashlib.sha256(asked.encode()).hexdigest()[:8]}.yml"
    command = [
        sys.executable,
        str(Path(__file__).resolve()),
        str(path.resolve()),
        "--name",
        study.name,
    ]
    command += ["--results", args.results, "--device", args.device]
    text = cluster.script(
        args.cluster,
        study.name,
        command,
        cluster.Asked(*(getattr(args, name) for name in cluster.Asked._fields)),
        study.folder,
    )
    if args.dry_run:
        print(text)
        return {}
    workers.begin(study)
    write_text(path, asked)
    left = [
        k
        for k, keys in enumerate(study.jobs)
        if not all(workers.is_done(study, key) for key in keys)
    ]
    stages = [k for k in left if k < study.teachers], [k for k in left if k >= study.teachers]
    ids = cluster.submit(args.cluster, text, study.folder, stages, args.jobs)
    print(
        f"{len(left)} of {len(study.jobs)} jobs are queued as {' and '.join(ids) or 'nothing'}; --status says how far they are, --collect reports"
    )
    return {"ids": ids}


def do_one(args, study, plan) -> None:
    """The job of a number, in this process."""
    from study import workers

    if args.task >= len(study.jobs):
        raise flags.UserError(f"task {args.task}: the study has jobs 0 to {len(study.jobs) - 1}")
    workers.begin(study)
    keys = study.jobs[args.task]
    workers.Telling(study, 1)(keys, workers.do(study, plan, keys))
    workers.complain(study, keys)


def work(args, study) -> None:
    """The jobs that are not done: teachers, then all others."""
    from study import workers

    workers.begin(study)
    left = [keys for keys in study.jobs if not all(workers.is_done(study, key) for key in keys)]
    print(
        f"{study.name}: {len(study.runs)} runs in {len(study.jobs)} jobs, {len(left)} of them to do",
        flush=True,
    )
    teachers = [keys for keys in left if study.runs[keys[0]].role == "teacher"]
    told = workers.Telling(study, len(left))
    with workers.Pool(
        min(args.jobs or workers.default_jobs(), max(1, len(left))), serve, (args,)
    ) as pool:
        pool.run(teachers, told)
        pool.run([keys for keys in left if keys not in teachers], told)


if __name__ == "__main__":
    flags.run(parse, main)
