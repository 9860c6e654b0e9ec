"""--labels best: train with each of several labels, and choose by held-out frames."""

from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from checkpoints import checkpoint
from cli.checks import given_teacher, untrained_teacher
from core import distributed
from core.registry import CANDIDATES, CANDIDATES_ALONE, LABELS, MEASUREMENT_WEIGHT, LabelSpec
from core.runtime import data_seed
from data.batches import build_loader
from physics.single_pixel import SinglePixel
from preparation import setup
from report.tables import markdown
from training.cache import Views
from training.held_out import HeldOutMeter
from training.loop import Fit
from training.run import Run
from training.validation import evaluate

WEIGHTS = (MEASUREMENT_WEIGHT / 4, MEASUREMENT_WEIGHT, 4 * MEASUREMENT_WEIGHT)


def trainer(
    prepare: Callable[[Namespace, torch.device, Fit | None], Fit],
    begin: Callable[[Namespace], Run],
    teacher: bool,
    device: torch.device,
) -> Callable[[list[Namespace]], list[dict]]:
    """What trains runs of a script: together, or with --labels best each as the best of several."""

    def train(runs: list[Namespace]) -> list[dict]:
        if runs[0].labels == "best":
            return [train_best(train_all, begin, args, teacher, device) for args in runs]
        return train_all(runs)

    def train_all(runs: list[Namespace]) -> list[dict]:
        return setup.train_together(lambda one, companion: prepare(one, device, companion), runs)

    return train


def candidates_of(args: Namespace, teacher: bool) -> list[Namespace]:
    """The command lines among which is chosen: labels, and weights of the measurements beside them.

    A weight that is typed is kept. A teacher that has nothing to learn does not learn first.
    """
    learns = teacher and not (untrained_teacher(args.teacher)[0] or given_teacher(args.teacher))
    candidates = []
    for labels in CANDIDATES if teacher else CANDIDATES_ALONE:
        spec = LABELS[labels]
        if spec.teacher_labels and not learns:
            continue
        weights = weights_of(spec, args.measurement_weight)
        for weight in weights:
            own: dict = {"labels": labels, "measurement_weight": weight}
            if spec.loss is None:
                own |= {"measurement_part": None}
            words = (args.run_name, labels, *([f"{weight:g}"] if len(weights) > 1 else []))
            own |= {"run_name": args.run_name and "_".join(words)}
            candidates.append(Namespace(**vars(args) | own))
    return candidates


def weights_of(spec: LabelSpec, typed: float | None) -> tuple[float | None, ...]:
    """The weights of a candidate's loss, where several are worth a try beside its labels."""
    if spec.loss is None:
        return (None,)
    if typed is not None:
        return (typed,)
    return WEIGHTS if spec.target else (MEASUREMENT_WEIGHT,)


def train_best(
    train_all: Callable[[list[Namespace]], list[dict]],
    begin: Callable[[Namespace], Run],
    args: Namespace,
    teacher: bool,
    device: torch.device,
) -> dict:
    """The scores of the best of several trainings, whose network becomes this run's.

    The network before training is one of them: it is the first checkpoint of each.
    """
    try:
        run = begin(args)
    except setup.Finished as finished:
        return finished.scores
    candidates = candidates_of(args, teacher)
    done = train_all(candidates)
    if args.dry_run:
        run.describe()
        return {}
    from report.statistics import first_of_best  # its scipy.stats takes a second to import

    rows = [describe(one, scores) for one, scores in zip(candidates, done, strict=True)]
    errors = held_out_errors([scores["checkpoint"] for scores in done], args, device)
    k = first_of_best([one.labels for one in candidates], errors)
    print(markdown(rows))
    chosen = rows[k]["labels"] if done[k]["best_epoch"] else "the network as it was"
    lowest = min(range(len(done)), key=lambda k: done[k]["val_recorded_error"])
    reason = "" if k == lowest else f", which {rows[lowest]['labels']} is not clearly better than"
    print(f"chosen by held-out frames: {chosen}{reason}")
    run.begin()
    if not distributed.rank():
        content = checkpoint.read(done[k]["checkpoint"])
        checkpoint.write(run.best, content | {"config": run.identity})
    shared = {name: value for name, value in done[k].items() if name not in ("run", "export")}
    scores = run.finish(shared | {"chosen": chosen})
    print(f"{'network':<12}{run.export}")
    return scores


def held_out_errors(
    paths: Sequence[str | Path], args: Namespace, device: torch.device
) -> list[list[float]]:
    """The estimated squared error of each checkpoint's network on every held-out frame."""
    frames = setup.splits_of(args)["val"]
    recording = setup.physics_of_recording(frames)
    assert recording is not None, "the dataset is a recording"
    recording = recording.to(device)
    loader, errors = build_loader(frames, args.batch_size, args.num_workers), []
    for path in paths:
        saved = checkpoint.restore(path, {}, kind=checkpoint.RESTORER)
        assert isinstance(saved.physics, SinglePixel), "a recording is made by one camera"
        views = Views(saved.physics.to(device), loader, device, data_seed(args))
        meter = HeldOutMeter(saved.physics, recording)
        meter = evaluate(saved.network.to(device), views, meter)
        errors.append(meter.per_image()["error"].double().tolist())
    return errors


def describe(args: Namespace, scores: dict) -> dict:
    """A row of the table of candidates."""
    name = args.labels
    if args.measurement_weight is not None:
        name += f" (weight {args.measurement_weight:g})"
    return {
        "labels": name,
        "held out (dB)": f"{scores['val_recorded_psnr']:.2f}",
        "standard error (dB)": f"{standard_error(scores):.2f}",
        "best epoch": scores["best_epoch"],
    }


def standard_error(scores: dict) -> float:
    """That of the score in dB."""
    error = max(scores["val_recorded_error"], 1e-10)
    return 10 / 2.302585 * scores["val_recorded_error_se"] / error
