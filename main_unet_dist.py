"""Distil a frozen teacher, or one that learns beside it (--online), into a student that measures less."""

from training import checks, options


def parse(argv=None):
    parser = options.Parser(__doc__)
    options.add_data(parser, limits=("train", "val"))
    options.add_loading(parser)
    options.add_physics(parser)
    options.add_network(parser, student=True)
    options.add_distillation(parser)
    options.add_teacher(parser)
    group = parser.add_argument_group("beginning")
    group.add_argument(
        "--init_student", metavar="PATH", help="begin with the weights of this checkpoint"
    )
    group.add_argument(
        "--online",
        action="store_true",
        help="the teacher learns too, beginning with --teacher or afresh at --cr_teacher",
    )
    options.add_training(parser)
    options.add_run(parser)
    parser.files += [checks.teacher_path, options.checkpoints("init_student")]
    return parser.parse_args(argv)


def main(args) -> dict:
    from training import engine, pipeline

    device = engine.start(args.device)
    return pipeline.every_seed(lambda one, beside: learner(one, device, beside), args, "val_psnr")


def learner(args, device, beside):
    """One student that is ready to be taught, or the scores of a run that is finished."""
    from functools import cache

    from training import pipeline
    from training.checkpoint import pack, write
    from training.run import Run

    pipeline.check_losses(args)
    path = checks.teacher_path(args)
    splits = cache(
        lambda: beside.splits if beside else pipeline.splits_of(args)
    )  # late: that a folder is taken is said first
    teacher = pipeline.teacher_of(args, path, lambda: splits()["train"].stack())
    camera = pipeline.physics_recipe(args)
    names = pipeline.student_names(
        args, camera, teacher.physics.recipe, "online_student" if args.online else "student"
    )
    run = Run(
        args,
        *names,
        {"teacher": path, "init_student": args.init_student} | pipeline.ordering_file(camera),
    )
    if run.finished:
        return run.already()
    physics = pipeline.camera_of(camera, splits())
    network, recipe = pipeline.network_of(args)
    pipeline.warm_start(network, recipe, args.init_student)
    stage = pipeline.distillation(
        args, network, physics, teacher, splits()["train"].stack, device, args.online
    )

    def keep_teacher() -> None:
        write(
            run.folder / "teacher.pth",
            pack(stage.teacher, teacher.recipe, stage.physics_t, run.identity),
        )

    return pipeline.learner(
        stage,
        recipe,
        splits(),
        args,
        run,
        before_export=keep_teacher if args.online else None,
        beside=beside,
    )


if __name__ == "__main__":
    options.run(parse, main)
