"""The groups of the benchmark: what is timed beside what; nothing is timed before both sides compute the same."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.multiprocessing import get_context

from algo_functions import build_physics
from core.errors import UserError
from core.registry import CLASS_LOSSES, CLASS_OPTIONS, LOSS_OPTIONS, LOSSES, LossSpec
from distill import build_task, build_term
from distill.task import Distillation, Guide
from models import build_network
from models.base import to_device
from physics.base import Physics
from speed.baseline import camera, observe
from speed.contenders import ALIKE, CASES, CR, TOLERANCE, Bench, Case, N, mask_of
from speed.timing import count_flops, interleaved, lines, memory_peak, seconds
from training.cache import Views
from training.checkpoint import RESTORER, restore
from training.loop import Fit, evaluate

LARGE = 256  # side from which on the memory of an observation is more than what threads take


def training(bench: Bench) -> list[dict]:
    """Steps and epochs of every case and width, and steps under --teacher."""
    rows = []
    if bench.args.teacher:  # first: a wrong one is said before minutes of timing
        config = restore(bench.args.teacher, kind=RESTORER).content["network"]
        if config["name"] != "unet":
            raise UserError(
                f"--teacher {bench.args.teacher} is a '{config['name']}': the plain loop has U-Nets only"
            )
    for width in bench.args.width:
        for name, case in CASES.items():
            rows += contest(bench, name, case, width)
    if bench.args.teacher:
        rows += contest(
            bench,
            f"distilled by {Path(bench.args.teacher).name}",
            CASES["distilled"],
            config["width"],
            bench.args.teacher,
        )
    return rows


def contest(bench: Bench, name: str, case: Case, width: int, raw: str | None = None) -> list[dict]:
    """Our step beside the plain loop's, the limit and the peak; and our epoch beside the plain loop's."""
    pair, args = bench.pair(case, width, raw), bench.args
    pair.check(TOLERANCE[args.precision], f"{name}, width {width}")
    print(f"{name}, width {width}: the same losses over {ALIKE} steps", flush=True)
    limit, (work, flops) = bench.limit(pair.ours.fit, case.augmented), bench.convolution
    contenders = {
        "ours": pair.ours.step,
        "plain loop": pair.plain_step,
        "limit (c)": limit,
        "limit (d)": work,
    }
    times = interleaved(contenders, args.rounds, bench.device, args.steps)
    needed = count_flops(limit)
    times["limit (d)"] = [taken * needed / flops for taken in times["limit (d)"]]
    about = {"n": N, "width": width, "batch": args.batch_size}
    rows = lines("training", f"{name}, step", times, args.batch_size, needed, **about)
    if not (raw or case.augmented):
        rounds, images = min(2, args.rounds), ALIKE * args.batch_size
        ours, times = (
            bench.in_epochs(case, width, images, args.batch_size, rounds),
            {"ours": [], "ours, and what is written": [], "plain loop": []},
        )
        for k in range(rounds):
            began = time.perf_counter()
            times["ours"].append(ours.epoch())
            times["ours, and what is written"].append(time.perf_counter() - began)
            times["plain loop"].append(seconds(lambda k=k: pair.plain.epoch(k), bench.device))
        rows += lines("training", f"{name}, epoch of {ALIKE} steps", times, images, **about)
    pair.plain.close()
    return rows


def inference(bench: Bench) -> list[dict]:
    """A pass over the validation images with its scores."""
    rows = []
    for width in bench.args.width:
        pair = bench.pair(CASES["supervised"], width)
        fit, count = pair.ours.fit, len(pair.ours.fit.splits["val"])
        contenders = passes(bench, fit, count) | {"plain loop": pair.plain.validate}
        times = interleaved(contenders, bench.args.rounds, bench.device)
        needed = count_flops(contenders["limit (c)"])
        pair.plain.close()
        rows += lines(
            "inference",
            f"validation of {count} images",
            times,
            count,
            needed,
            n=N,
            width=width,
            batch=bench.args.batch_size,
        )
    return rows


def passes(bench: Bench, fit: Fit, count: int) -> dict[str, Callable[[], None]]:
    """Our evaluation, with observations made anew and with those that a training remembers; and forward passes alone."""
    batches = bench.resident(count).split(bench.args.batch_size)

    def scored(views: Views) -> None:
        with fit.in_precision():
            evaluate(fit.network, views, fit.meter()).summary()

    @torch.no_grad()
    def limit() -> None:
        with bench.autocast():
            for x0 in batches:
                fit.network(x0)

    return {
        "ours": lambda: scored(Views(fit.camera, fit.val, bench.device, 0)),
        "ours, observations remembered": lambda: scored(fit.views),
        "limit (c)": limit,
    }


def spc(n: int) -> Physics:
    return build_physics(
        {
            "name": "spc",
            "n": n,
            "c": 1,
            "cr": CR,
            "ordering": "xy",
            "x0": "adjoint",
            "awgn_snr": None,
        }
    )


def physics(bench: Bench) -> list[dict]:
    """Measuring and the first image, beside deepinv's transform and one copy in memory; and the memory of the largest, if it is large."""
    rows = []
    for n in bench.args.sizes:
        ours = spc(n)
        theirs, ours = camera(mask_of(ours)).to(bench.device), ours.to(bench.device)
        x = torch.rand(max(1, min(64, 2**20 // n**2)), 1, n, n, device=bench.device)
        difference = (ours.observe(x) - observe(theirs, x)).abs().max().item()
        if difference > 1e-4:
            raise UserError(
                f"physics, n {n}: the first images differ by {difference:.1e} from deepinv's; nothing is timed"
            )
        contenders = {
            "ours": lambda ours=ours, x=x: ours.observe(x),
            "deepinv": lambda theirs=theirs, x=x: observe(theirs, x),
            "limit: copy in memory": x.clone,
        }
        times = interleaved(contenders, bench.args.rounds, bench.device, repeat=3)
        rows += lines("physics", f"first image, {n} x {n}", times, len(x), n=n, batch=len(x))
    n = max(bench.args.sizes)
    if n < LARGE:
        return rows
    with get_context("spawn").Pool(2) as pool:
        memory = dict(
            zip(("ours", "deepinv"), pool.starmap(grown, [(n, True), (n, False)], 1), strict=True)
        )
    about = {"group": "physics", "case": f"memory of an observation, {n} x {n}", "n": n, "batch": 1}
    return rows + [
        about | {"contender": name, "ratio": size / max(memory["ours"], 1), "MiB": size / 2**20}
        for name, size in memory.items()
    ]


def grown(n: int, ours: bool) -> int:
    """Bytes by which a process grows at most when a camera is made and observes one image."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before, seen = memory_peak(), spc(n)
    with torch.no_grad():
        x = torch.rand(1, 1, n, n)
        seen.observe(x) if ours else observe(camera(mask_of(seen)), x)
    return memory_peak() - before


def losses(bench: Bench) -> list[dict]:
    """Every loss, forward and backward, beside the student's own forward and backward pass."""
    width, batch = bench.args.width[0], bench.args.batch_size
    picture = build_physics(
        {"name": "image", "n": N, "c": 1, "lessen_ratio": 1.0, "resize": "antialias"}
    )
    resnet = {"name": "resnet8", "c": 1, "width": width, "side": N, "classes": list("0123456789")}
    kinds = {
        "of images": (LOSSES, LOSS_OPTIONS, {"name": "unet", "c": 1, "width": width}, spc(N)),
        "of classes": (CLASS_LOSSES, CLASS_OPTIONS, resnet, picture),
    }
    rows = []
    for kind, (table, options, config, seen) in kinds.items():
        student, teacher = (to_device(build_network(config), bench.device) for _ in range(2))
        x, index = bench.resident(batch), torch.arange(batch, device=bench.device)
        label = index % 10
        stages = {
            name: comparing(
                name, table, options, student, teacher, seen.to(bench.device), label.tolist()
            )
            for name in table
        }
        absent = [name for name, stage in stages.items() if stage is None]
        if absent:
            print(f"losses {kind} left out, because they cannot be had here: {', '.join(absent)}")
        about = {
            "label": label,
            "index": index,
            "epoch": 1.0,
            "seen": x,
            "generator": torch.Generator().manual_seed(0),
        }
        contenders = {
            "student, forward and backward": lambda student=student, x=x: (
                student(x).square().mean().backward()
            )
        }
        contenders |= {
            name: distance_of(stage, student.features(x), teacher.features(x), about)
            for name, stage in stages.items()
            if stage
        }
        times = interleaved(contenders, bench.args.rounds, bench.device, repeat=3)
        rows += lines("losses", kind, times, n=N, width=width, batch=batch)
    return rows


def comparing(
    name: str,
    table: dict[str, LossSpec],
    options: dict,
    student: nn.Module,
    teacher: nn.Module,
    seen: Physics,
    labels: list[int],
) -> Distillation | None:
    """A stage with one loss, on the taps of its own or on the first of latent and output that it can compare."""
    for selection in ("latent", "output"):
        with suppress(UserError):
            term = build_term(name, None, table, None, **options)
            teachers = [Guide(teacher, seen)]
            stage = Distillation(
                student,
                seen,
                teachers,
                selection=selection,
                losses=[term],
                task=build_task("mse"),
                labels=labels,
            )
            return stage.to(next(student.parameters()).device)
    return None


def distance_of(
    stage: Distillation, s: dict[str, Tensor], t: dict[str, Tensor], about: dict
) -> Callable[[], None]:
    """The value of a stage's comparisons and its gradient at the student's taps."""
    s = {layer: f.detach().requires_grad_() for layer, f in s.items()}
    t = {layer: f.detach() + 0.1 * torch.randn_like(f) for layer, f in t.items()}
    return lambda: sum(
        stage.distance(comparison, s, t, about) for comparison in stage.comparisons
    ).backward()


def scaling(bench: Bench) -> list[dict]:
    """The cost of an epoch over the number of images, and images a second over the batch size."""
    args, case, cuda = bench.args, CASES["distilled"], bench.device.type == "cuda"
    width, batch, rounds = (
        args.width[-1 if cuda else 0],
        max(args.batch_sizes) if cuda else args.batch_size,
        min(args.rounds, 2),
    )
    runs = {
        f"{count:,} images": bench.in_epochs(case, width, count, batch, 1 + rounds)
        for count in args.images
    }
    epochs = {name: [] for name in runs}
    for _ in range(rounds + cuda):  # the first epoch on CUDA warms up
        for name, ours in runs.items():
            epochs[name].append(seconds(ours.epoch, bench.device))
    counts = dict(zip(runs, args.images, strict=True))
    rows = lines(
        "scaling",
        "an image of an epoch",
        {name: [s / counts[name] for s in taken[cuda:]] for name, taken in epochs.items()},
        1,
    )
    rows = [
        row
        | {
            "epoch (s)": row["seconds"] * counts[row["contender"]],
            "n": N,
            "width": width,
            "batch": batch,
        }
        for row in rows
    ]
    runs = {
        f"batch {size}": bench.stepping(case, width, 4 * size, size) for size in args.batch_sizes
    }
    times = interleaved(
        {name: ours.step for name, ours in runs.items()}, args.rounds, bench.device, args.steps
    )
    sizes, top = (
        dict(zip(runs, args.batch_sizes, strict=True)),
        max(rate for name, rate in bench.rates.items() if "matrices" in name),
    )
    for row in lines(
        "scaling",
        "an image of a step",
        {name: [s / sizes[name] for s in taken] for name, taken in times.items()},
        1,
        n=N,
        width=width,
    ):
        size = sizes[row["contender"]]
        rate = count_flops(bench.limit(runs[row["contender"]].fit)) / size / row["seconds"]
        rows.append(row | {"batch": size, "GFLOP/s": rate / 1e9, "of the matrix peak": rate / top})
    return rows


def peak(bench: Bench) -> list[dict]:
    """What convolutions and products of matrices reach at most."""
    rows = lines("peak", f"{bench.device.type}, {bench.args.precision}", bench.peak_times)
    return [row | {"ratio": None, "GFLOP/s": bench.rates[row["contender"]] / 1e9} for row in rows]
