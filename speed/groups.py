"""The groups of the benchmark; nothing is timed before both sides compute the same."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor
from torch.multiprocessing import get_context

from algo_functions import build_physics
from checkpoints.checkpoint import RESTORER, restore
from core.errors import UserError
from core.registry import CLASS_LOSSES, CLASS_OPTIONS, LOSS_OPTIONS, LOSSES, LossSpec
from distill import build_loss, build_task_loss
from distill.task import Distillation, Teacher
from models import build_network
from models.base import Network, to_device
from physics.base import Physics
from speed.baseline import build_operator, observe_image
from speed.candidates import CASES, CHECKED_STEPS, CR, TOLERANCE, Bench, Case, N, mask_of
from speed.timing import (
    Work,
    count_flops,
    process_memory_peak,
    time_interleaved,
    time_work,
    timing_rows,
)
from training.cache import Views
from training.loop import Fit
from training.validation import evaluate

LARGE = 256  # side from which on the memory of an observation exceeds that of threads


# ---------------------------------------------------------------- training


def time_training(bench: Bench) -> list[dict]:
    """Steps and epochs of every case and width, and steps with --teacher."""
    rows, path, config = [], bench.args.teacher, {}
    if path:  # first: a wrong one is reported before minutes of timing
        config = restore(path, kind=RESTORER).network_config
        if config["name"] != "unet":
            raise UserError(
                f"--teacher {path} is a '{config['name']}': the baseline loop supports U-Nets only"
            )
    for width in bench.args.width:
        for name, case in CASES.items():
            rows += time_case(bench, name, case, width)
    if path:
        name = f"distilled by {Path(path).name}"
        rows += time_case(bench, name, CASES["distilled"], config["width"], path)
    return rows


def time_case(
    bench: Bench, name: str, case: Case, width: int, teacher: str | None = None
) -> list[dict]:
    """Our step, the baseline loop's, the limit and the peak; and epochs of both sides."""
    pair, args = bench.pair(case, width, teacher), bench.args
    pair.check(TOLERANCE[args.precision], f"{name}, width {width}")
    print(f"{name}, width {width}: the same losses over {CHECKED_STEPS} steps", flush=True)
    limit, (work, flops) = bench.limit(pair.ours.fit, case.augmented), bench.convolution
    candidates = {
        "ours": pair.ours.step,
        "baseline loop": pair.baseline_step,
        "limit (c)": limit,
        "limit (d)": work,
    }
    times = time_interleaved(candidates, args.rounds, bench.device, args.steps)
    needed = count_flops(limit)
    times["limit (d)"] = [seconds * needed / flops for seconds in times["limit (d)"]]
    sizes = {"n": N, "width": width, "batch": args.batch_size}
    rows = timing_rows("training", f"{name}, step", times, args.batch_size, needed, **sizes)
    if not (teacher or case.augmented):
        rounds, images = min(2, args.rounds), CHECKED_STEPS * args.batch_size
        ours = bench.train_epochs(case, width, images, args.batch_size, rounds)
        times = {"ours": [], "ours with writing": [], "baseline loop": []}
        for k in range(rounds):
            began = time.perf_counter()
            times["ours"].append(ours.epoch())
            times["ours with writing"].append(time.perf_counter() - began)
            seconds = time_work(lambda k=k: pair.baseline.epoch(k), bench.device)
            times["baseline loop"].append(seconds)
        epoch = f"{name}, epoch of {CHECKED_STEPS} steps"
        rows += timing_rows("training", epoch, times, images, **sizes)
    pair.baseline.close()
    return rows


# ---------------------------------------------------------------- inference


def time_inference(bench: Bench) -> list[dict]:
    """A pass over the validation images with its scores."""
    rows = []
    for width in bench.args.width:
        pair = bench.pair(CASES["supervised"], width)
        fit, count = pair.ours.fit, len(pair.ours.fit.splits["val"])
        candidates = validation_passes(bench, fit, count)
        candidates["baseline loop"] = pair.baseline.validate
        times = time_interleaved(candidates, bench.args.rounds, bench.device)
        needed = count_flops(candidates["limit (c)"])
        pair.baseline.close()
        sizes = {"n": N, "width": width, "batch": bench.args.batch_size}
        case = f"validation of {count} images"
        rows += timing_rows("inference", case, times, count, needed, **sizes)
    return rows


def validation_passes(bench: Bench, fit: Fit, count: int) -> dict[str, Callable[[], object]]:
    """Our evaluation with new and with cached observations, and forward passes alone."""
    batches = bench.resident_batch(count).split(bench.args.batch_size)

    def score(views: Views) -> None:
        with fit.in_precision():
            evaluate(fit.network, views, fit.meter.new()).summary()

    @torch.no_grad()
    def limit() -> None:
        with bench.autocast():
            for x0 in batches:
                fit.network(x0)

    return {
        "ours": lambda: score(Views(fit.val_physics, fit.val, bench.device, 0)),
        "ours, cached observations": lambda: score(fit.views),
        "limit (c)": limit,
    }


# ---------------------------------------------------------------- physics


def build_spc(n: int, cr: float = CR) -> Physics:
    config = {"name": "spc", "n": n, "c": 1, "cr": cr, "ordering": "xy", "x0": "adjoint"}
    return build_physics(config | {"awgn_snr": None})


def time_physics(bench: Bench) -> list[dict]:
    """Measuring and the first image, deepinv's transform, and one copy in memory.

    And the memory of the largest observation, if it is large.
    """
    rows = []
    for n in bench.args.sizes:
        ours = build_spc(n)
        theirs, ours = build_operator(mask_of(ours)).to(bench.device), ours.to(bench.device)
        count = max(1, min(64, 2**20 // n**2))
        x = torch.rand(count, 1, n, n, device=bench.device)
        difference = (ours.observe(x) - observe_image(theirs, x)).abs().max().item()
        if difference > 1e-4:
            raise UserError(
                f"physics, n {n}: the first images differ by {difference:.1e} from deepinv's; "
                "nothing is timed"
            )
        candidates = {
            "ours": lambda ours=ours, x=x: ours.observe(x),
            "deepinv": lambda theirs=theirs, x=x: observe_image(theirs, x),
            "limit: copy in memory": x.clone,
        }
        times = time_interleaved(candidates, bench.args.rounds, bench.device, repeat=3)
        rows += timing_rows("physics", f"first image, {n} x {n}", times, count, n=n, batch=count)
    n = max(bench.args.sizes)
    return rows + memory_rows(n) if n >= LARGE else rows


def memory_rows(n: int) -> list[dict]:
    """The memory of an observation, each measured in a process of its own."""
    with get_context("spawn").Pool(2) as pool:
        ours, theirs = pool.starmap(measure_memory, [(n, True), (n, False)], 1)
    case = {"group": "physics", "case": f"memory of an observation, {n} x {n}", "n": n, "batch": 1}
    return [
        case | {"candidate": name, "ratio": size / max(ours, 1), "MiB": size / 2**20}
        for name, size in (("ours", ours), ("deepinv", theirs))
    ]


def measure_memory(n: int, ours: bool) -> int:
    """Bytes by which the peak of a process grows when a physics is built and observes an image."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before, physics = process_memory_peak(), build_spc(n)
    with torch.no_grad():
        x = torch.rand(1, 1, n, n)
        if ours:
            physics.observe(x)
        else:
            observe_image(build_operator(mask_of(physics)), x)
    return process_memory_peak() - before


# ---------------------------------------------------------------- losses


def time_losses(bench: Bench) -> list[dict]:
    """Every loss, forward and backward, and the student's own forward and backward pass."""
    width = bench.args.width[0]
    image = {"name": "image", "n": N, "c": 1, "lessen_ratio": 1.0, "resize": "antialias"}
    unet = {"name": "unet", "c": 1, "width": width}
    resnet = {"name": "resnet8", "c": 1, "width": width, "side": N, "classes": list("0123456789")}
    kinds = {
        "of images": (LOSSES, LOSS_OPTIONS, unet, build_spc(N)),
        "of classes": (CLASS_LOSSES, CLASS_OPTIONS, resnet, build_physics(image)),
    }
    rows = []
    for kind, (table, options, config, physics) in kinds.items():
        candidates = loss_candidates(bench, kind, table, options, config, physics)
        times = time_interleaved(candidates, bench.args.rounds, bench.device, repeat=3)
        rows += timing_rows("losses", kind, times, n=N, width=width, batch=bench.args.batch_size)
    return rows


def loss_candidates(
    bench: Bench,
    kind: str,
    table: dict[str, LossSpec],
    options: dict,
    config: dict,
    physics: Physics,
) -> dict[str, Callable[[], object]]:
    """The work of the student, and of every loss of a table that can be built here."""
    batch = bench.args.batch_size
    student, teacher = (to_device(build_network(config), bench.device) for _ in range(2))
    x, index = bench.resident_batch(batch), torch.arange(batch, device=bench.device)
    label, physics = index % 10, physics.to(bench.device)
    tasks = {
        name: build_distillation(name, table, options, student, teacher, physics, label.tolist())
        for name in table
    }
    if missing := [name for name, task in tasks.items() if task is None]:
        print(f"losses {kind} that cannot be built here are left out: {', '.join(missing)}")
    generator = torch.Generator().manual_seed(0)
    context = {
        "label": label,
        "index": index,
        "epoch": 1.0,
        "teacher_input": x,
        "generator": generator,
    }
    candidates: dict[str, Callable[[], object]] = {
        "student, forward and backward": lambda: student(x).square().mean().backward()
    }
    for name, task in tasks.items():
        if task is not None:
            s, t = student.features(x), teacher.features(x)
            candidates[name] = distance_work(task, s, t, context)
    return candidates


def build_distillation(
    name: str,
    table: dict[str, LossSpec],
    options: dict,
    student: Network,
    teacher: Network,
    physics: Physics,
    labels: list[int],
) -> Distillation | None:
    """A distillation with one loss, on the first of latent and output that it can compare."""
    for selection in ("latent", "output"):
        with suppress(UserError):
            task = Distillation(
                student,
                physics,
                [Teacher(teacher, physics)],
                selection=selection,
                losses=[build_loss(name, None, table, None, **options)],
                task_loss=build_task_loss("mse"),
                labels=labels,
            )
            return task.to(next(student.parameters()).device)
    return None


def distance_work(
    task: Distillation, s: dict[str, Tensor], t: dict[str, Tensor], context: dict
) -> Callable[[], object]:
    """The value of the comparisons, and its gradient at the student's features."""
    s = {layer: f.detach().requires_grad_() for layer, f in s.items()}
    t = {layer: f.detach() + 0.1 * torch.randn_like(f) for layer, f in t.items()}

    def work() -> None:
        distances = [task.distance(comparison, s, t, context) for comparison in task.comparisons]
        torch.stack(distances).sum().backward()

    return work


# ---------------------------------------------------------------- scaling and peak


def time_scaling(bench: Bench) -> list[dict]:
    """The cost of an epoch over the number of images, and of a step over the batch size."""
    return time_image_counts(bench) + time_batch_sizes(bench)


def scaling_width(bench: Bench) -> int:
    return bench.args.width[-1 if bench.device.type == "cuda" else 0]


def time_image_counts(bench: Bench) -> list[dict]:
    args, cuda = bench.args, bench.device.type == "cuda"
    batch = max(args.batch_sizes) if cuda else args.batch_size
    width, rounds = scaling_width(bench), min(args.rounds, 2)
    counts = {f"{count:,} images": count for count in args.images}
    trainings = {
        name: bench.train_epochs(CASES["distilled"], width, count, batch, 1 + rounds)
        for name, count in counts.items()
    }
    times = {name: [] for name in counts}
    for _ in range(rounds + cuda):  # the first epoch on CUDA warms up
        for name, ours in trainings.items():
            times[name].append(time_work(ours.epoch, bench.device) / counts[name])
    times = {name: seconds[cuda:] for name, seconds in times.items()}
    sizes = {"n": N, "width": width, "batch": batch}
    return [
        row | {"epoch (s)": row["seconds"] * counts[row["candidate"]]} | sizes
        for row in timing_rows("scaling", "an image of an epoch", times, 1)
    ]


def time_batch_sizes(bench: Bench) -> list[dict]:
    args, width = bench.args, scaling_width(bench)
    sizes = {f"batch {size}": size for size in args.batch_sizes}
    trainings = {
        name: bench.train_steps(CASES["distilled"], width, 4 * size, size)
        for name, size in sizes.items()
    }
    steps: dict[str, Work] = {name: ours.step for name, ours in trainings.items()}
    times = time_interleaved(steps, args.rounds, bench.device, args.steps)
    times = {name: [s / sizes[name] for s in seconds] for name, seconds in times.items()}
    top = max(rate for name, rate in bench.rates.items() if "matrices" in name)
    rows = []
    for row in timing_rows("scaling", "an image of a step", times, 1, n=N, width=width):
        size = sizes[row["candidate"]]
        flops = count_flops(bench.limit(trainings[row["candidate"]].fit))
        rate = flops / size / row["seconds"]
        rows.append(row | {"batch": size, "GFLOP/s": rate / 1e9, "of the matrix peak": rate / top})
    return rows


def time_peak(bench: Bench) -> list[dict]:
    """The highest rates of convolutions and products of matrices."""
    rows = timing_rows("peak", f"{bench.device.type}, {bench.args.precision}", bench.peak_times)
    return [row | {"ratio": None, "GFLOP/s": bench.rates[row["candidate"]] / 1e9} for row in rows]
