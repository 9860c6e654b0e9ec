"""Distil a frozen teacher, or one that learns beside it (--online), into a student that measures less."""

from cli import checks, flags


def build_parser() -> flags.Parser:
    parser = flags.Parser(__doc__)
    flags.add_data(parser, limits=("train", "val"))
    flags.add_loading(parser)
    flags.add_physics(parser)
    flags.add_network(parser, student=True)
    flags.add_distillation(parser)
    flags.add_teacher(parser)
    group = parser.add_argument_group("beginning")
    group.add_argument(
        "--init_student", metavar="PATH", help="begin with the weights of this checkpoint"
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
    from training import setup

    device = runtime.start(args.device)
    return setup.every_seed(
        lambda one, companion: learner(one, device, companion), args, "val_psnr"
    )


def learner(args, device, companion):
    """One student that is ready to be taught, or the scores of a run that is finished."""
    from functools import cache

    from training import setup
    from training.checkpoint import pack, write
    from training.run import Run

    setup.check_losses(args)
    path = checks.teacher_path(args)
    splits = cache(
        lambda: companion.splits if companion else setup.splits_of(args)
    )  # late: that a folder is taken is said first
    teacher = setup.teacher_of(args, path, lambda: splits()["train"].stack())
    camera = setup.physics_config(args)
    names = setup.student_names(
        args, camera, teacher.physics.config, "online_student" if args.online else "student"
    )
    run = Run(
        args,
        *names,
        {"teacher": path, "init_student": args.init_student} | setup.ordering_file(camera),
    )
    if run.finished:
        return run.already()
    physics = setup.fitted_physics(camera, splits())
    network, config = setup.network_of(args)
    setup.warm_start(network, config, args.init_student)
    stage = setup.distillation(
        args, network, physics, teacher, splits()["train"].stack, device, args.online
    )

    def keep_teacher() -> None:
        write(
            run.folder / "teacher.pth",
            pack(stage.teacher, teacher.config, stage.physics_t, run.identity),
        )

    return setup.learner(
        stage,
        config,
        splits(),
        args,
        run,
        before_export=keep_teacher if args.online else None,
        companion=companion,
    )


if __name__ == "__main__":
    flags.run(parse, main)
