"""Distil a teacher, frozen or learning too (--online), into a student that measures less."""

from cli import checks, flags


def build_parser() -> flags.Parser:
    parser = flags.Parser(__doc__)
    flags.add_data(parser, limits=("train", "val"))
    flags.add_loading(parser)
    flags.add_physics(parser)
    flags.add_network(parser, student=True)
    flags.add_distillation(parser)
    flags.add_recorded(parser, "both")
    flags.add_teacher(
        parser,
        "its checkpoint; or at --cr_teacher, by default from the student's values: tv, tv:WEIGHT "
        "or pnp:DENOISER.pth (total variation, or a plugged-in denoiser), your own FILE.py:NAME, "
        "or a program FILE.pt2; without it NETWORK_cr_<cr_teacher>.pth of the student's network, "
        "or else UNET_cr_<cr_teacher>.pth",
    )
    flags.add_untrained_teacher(parser)
    flags.add_self_ensemble(parser, "the teacher answers")
    parser.checks.append(checks.check_self_ensemble)
    group = parser.add_argument_group("beginning")
    group.add_argument(
        "--init_student",
        type=flags.network_file,
        metavar="PATH",
        help="begin with the weights of this checkpoint",
    )
    group.add_argument(
        "--online",
        action="store_true",
        help="the teacher learns too, beginning with --teacher or afresh at --cr_teacher",
    )
    flags.add_training(parser)
    flags.add_run(parser)
    parser.files += [checks.teacher_path, flags.checkpoints("init_student")]
    return parser


def parse(argv=None):
    return build_parser().parse_args(argv)


def main(args) -> dict:
    from core import runtime
    from preparation import choice, setup

    device = runtime.start(args.device)
    train = choice.trainer(prepare, begin, True, device)
    return setup.over_seeds(train, args, setup.score_of(args))


def begin(args, teacher=None):
    """The run of a student, which is named after its teacher."""
    from preparation import own_code, setup

    path = checks.teacher_path(args)
    teacher = teacher or setup.teacher_of(
        args, path, lambda: setup.splits_of(args)["train"].stack()
    )
    physics_config = setup.physics_config_of(args)
    prefix = "online_student" if args.online else "student"
    return setup.begin_run(
        args,
        *setup.student_names(args, physics_config, teacher.physics.config, prefix),
        checks.teacher_files(args)
        | {"init_student": args.init_student}
        | setup.ordering_file(physics_config)
        | own_code.files(args)
        | setup.recording_files(args),
    )


def prepare(args, device, companion=None, train_teacher=None):
    """A student and its teacher, ready to be trained.

    `train_teacher` trains a teacher that learns from a recording first, by default to its end.
    """
    from dataclasses import replace
    from functools import cache

    from checkpoints.checkpoint import pack, write
    from preparation import setup
    from preparation.adapted import prepare_teacher
    from preparation.mirrored import self_ensemble

    setup.check_losses(args)
    physics_config = setup.physics_config_of(args)  # first, as it reads a recording
    path = checks.teacher_path(args)

    @cache  # loaded late: what is wrong with the run folder is reported first
    def splits():
        return companion.splits if companion else setup.splits_of(args)

    teacher = setup.teacher_of(args, path, lambda: splits()["train"].stack())
    run = begin(args, teacher)
    teacher = prepare_teacher(args, teacher, path, splits(), device, train_teacher)
    if args.self_ensemble:
        owner = f"teacher {args.teacher or path}"
        network = self_ensemble(teacher.network, teacher.physics, owner)
        teacher = replace(teacher, network=network)
    physics = setup.fitted_physics(physics_config, splits())
    network, config = setup.network_of(args)
    setup.warm_start(network, config, physics, args.init_student)
    task = setup.distillation(
        args,
        network,
        physics,
        teacher,
        splits()["train"].stack,
        device,
        args.online,
        setup.physics_of_recording(splits()["train"]),
    )

    def keep_teacher() -> None:
        content = pack(task.teacher, teacher.config, task.physics_t, run.identity)
        write(run.folder / "teacher.pth", content)

    before_export = keep_teacher if args.online else None
    return setup.fit_of(
        task, config, splits(), args, run, before_export=before_export, companion=companion
    )


if __name__ == "__main__":
    flags.run(parse, main)
