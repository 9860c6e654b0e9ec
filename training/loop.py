"""One loop for every stage."""

import copy
import math
import time
from argparse import Namespace
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from algo_functions import Meter
from data_loader import Images, build_loader
from physics.base import Physics
from tables import OPTIMIZERS, Diverged, UserError, look_up
from training import checkpoint
from training.engine import seeded
from training.run import Run
from training.tracking import Tracker

ORDER, NOISE, VALIDATION, PROBE = range(4)  # streams of random numbers that a run draws from


def learning_rate(args: Namespace, epoch: float) -> float:
    """At a fractional epoch: linear warm-up, then constant or a half cosine down to zero."""
    warm = min(args.warmup, args.epochs / 2)
    if epoch < warm:
        return args.lr * epoch / warm
    if args.schedule == "constant":
        return args.lr
    return args.lr * 0.5 * (1 + math.cos(math.pi * (epoch - warm) / (args.epochs - warm)))


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """e <- d e + (1 - d) w, with a shorter memory in the first steps."""
    decay = min(decay, (1 + step) / (10 + step))
    for e, w in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if e.is_floating_point():
            e.lerp_(w, 1 - decay)
        else:
            e.copy_(w)


@torch.no_grad()
def reconstructions(network: nn.Module, physics: Physics, loader: DataLoader, device: torch.device, seed: int) -> Iterator:
    """Batch by batch: clean image, measurements, reconstruction, by one camera and with the noise that the seed draws."""
    network.eval()
    generator = seeded(seed, VALIDATION)
    for batch in loader:
        image = batch["image"].to(device)
        y = physics.measure(image, generator)
        yield image, y, network(physics.first_image(y))


def evaluate(network: nn.Module, physics: Physics, loader: DataLoader, device: torch.device, seed: int) -> Meter:
    """Scores of every image of a split, once for each camera that the network has to cope with."""
    meter = Meter()
    for part in physics.parts:
        for image, _, output in reconstructions(network, part, loader, device, seed):
            meter.add(output, image)
    return meter


def gradient_shares(stage: nn.Module, batch: dict, generator: torch.Generator) -> dict[str, float]:
    """‖gradient of a term‖ / sum of these norms, over the student's weights, on one batch."""
    stage.eval()
    weights = [w for w in stage.student.parameters() if w.requires_grad]
    norms = {}
    for name, term in stage(batch, generator)["terms"].items():
        grads = torch.autograd.grad(term, weights, retain_graph=True, allow_unused=True) if term.requires_grad else []
        norms[name] = math.sqrt(sum(g.double().square().sum().item() for g in grads if g is not None))
    total = sum(norms.values()) or 1.0
    return {f"share_{name}": norm / total for name, norm in norms.items()}


class Fit:
    """The state of a training: stage, optimiser, average, metrics so far."""

    def __init__(self, stage: nn.Module, recipe: dict, splits: dict[str, Images], args: Namespace, run: Run, before_export: Callable | None = None):
        self.stage, self.recipe, self.args, self.run, self.before_export = stage, recipe, args, run, before_export
        self.train = build_loader(splits["train"], args.batch_size, args.num_workers, shuffle_seed=args.seed)
        self.val = build_loader(splits["val"], args.batch_size, args.num_workers)
        self.device = next(stage.student.parameters()).device
        momentum = {"momentum": 0.9} if args.optimizer == "sgd" else {}
        self.weights = [w for w in stage.parameters() if w.requires_grad]
        optimizer = look_up(OPTIMIZERS, args.optimizer, "optimizer")
        self.optimizer = optimizer(self.weights, lr=args.lr, weight_decay=args.weight_decay, **momentum)
        self.average = copy.deepcopy(stage.student) if args.ema else None
        self.rows: list[dict] = []

    @property
    def network(self) -> nn.Module:
        """What is evaluated and exported."""
        return self.stage.student if self.average is None else self.average

    def state(self) -> dict:
        average = None if self.average is None else self.average.state_dict()
        return {"stage": self.stage.state_dict(), "optimizer": self.optimizer.state_dict(), "average": average, "rows": self.rows}

    def load(self, state: dict) -> None:
        self.stage.load_state_dict(state["stage"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.rows = state["rows"]

    def step(self, batch: dict, generator: torch.Generator, epoch: float) -> tuple[dict, Tensor]:
        """One update; the learning rate is that of the fractional epoch."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.args, epoch)
        try:
            result = self.stage(batch, generator)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise UserError(f"a batch of {len(batch['image'])}: {error}; choose another --batch_size") from None
        result["loss"].backward()
        norm = nn.utils.clip_grad_norm_(self.weights, self.args.grad_clip or math.inf)
        if not torch.isfinite(norm + result["loss"].detach()):
            bad = [name for name, term in result["terms"].items() if not torch.isfinite(term)] or ["a gradient"]
            raise Diverged(f"{', '.join(bad)} is not finite in epoch {epoch:.2f}; the checkpoints before it are kept in {self.run.folder}")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return result

    def epoch(self, epoch: int, bar: tqdm) -> dict:
        """One pass over the training images; its means, and each term's share of the gradient."""
        args, steps = self.args, len(self.train)
        self.train.generator.manual_seed(seeded(args.seed, ORDER, epoch).initial_seed())
        self.train.dataset.epoch = epoch
        generator = seeded(args.seed, NOISE, epoch)
        sums, count, meter = {}, 0, Meter()
        self.stage.train()
        for i, batch in enumerate(self.train):
            batch = {name: value.to(self.device) for name, value in batch.items()}
            result = self.step(batch, generator, epoch + (i + 0.5) / steps)
            if self.average is not None:
                update_average(self.average, self.stage.student, args.ema, epoch * steps + i)
            size = len(batch["image"])
            for name, value in {"loss": result["loss"], **result["terms"], **result.get("metrics", {})}.items():
                sums[name] = sums.get(name, 0.0) + value.item() * size
            count += size
            meter.add(result["output"].detach(), batch["image"])
            bar.update()
            bar.set_postfix(loss=f"{sums['loss'] / count:.2e}", PSNR=f"{meter.rows['psnr'][-1].mean():.2f}", refresh=False)
        scores = meter.summary()
        shares = gradient_shares(self.stage, batch, seeded(args.seed, PROBE, epoch))
        means = {f"train_{name}": value / count for name, value in sums.items()}
        return means | {"train_psnr": scores["psnr"], "train_ssim": scores["ssim"]} | shares

    def __call__(self) -> dict:
        """Trains to the last epoch, from where an interrupted run stopped; the best on validation is exported."""
        args, run = self.args, self.run
        saved = run.begin()
        if saved is not None:
            self.load(saved["resume"])
            print(f"run {run.name} goes on after epoch {len(self.rows)} of {args.epochs}")
        tracker = Tracker(args.wandb, args.wandb_project, run.name, run.record["wandb_id"], run.folder, run.identity)
        steps, done = len(self.train), len(self.rows)
        with tqdm(total=steps * args.epochs, initial=steps * done, disable=None, leave=False, unit="step") as bar:
            for epoch in range(done, args.epochs):
                began = time.perf_counter()
                row = {"epoch": epoch + 1, **self.epoch(epoch, bar), "lr": self.optimizer.param_groups[0]["lr"]}
                scores = evaluate(self.network, self.stage.physics, self.val, self.device, args.seed).summary()
                row |= {"val_psnr": scores["psnr"], "val_ssim": scores["ssim"], "seconds": round(time.perf_counter() - began, 3)}
                self.rows.append(row)
                self.save(scores)
                tracker.log(row)
                tqdm.write(self.line(row))
        tracker.close()
        if self.before_export is not None:
            self.before_export()
        best = max(self.rows, key=lambda row: row["val_psnr"])
        return run.finish({"val_psnr": best["val_psnr"], "val_ssim": best["val_ssim"], "best_epoch": best["epoch"], "epochs": args.epochs})

    def save(self, scores: dict) -> None:
        """The best so far, then the last, then the metrics: what is read again is never ahead of what it needs."""
        row = self.rows[-1]
        content = checkpoint.pack(self.network, self.recipe, self.stage.physics, self.run.identity, epoch=row["epoch"], scores=scores)
        if row["val_psnr"] >= max(r["val_psnr"] for r in self.rows):
            checkpoint.write(self.run.best, content)
        checkpoint.write(self.run.last, content | {"resume": self.state()})
        self.run.log(self.rows)

    def line(self, row: dict) -> str:
        """An epoch in one line."""
        left = (self.args.epochs - row["epoch"]) * row["seconds"]
        return (
            f"epoch {row['epoch']:>3}/{self.args.epochs}  loss {row['train_loss']:.3e}  train {row['train_psnr']:.2f} dB  "
            f"val {row['val_psnr']:.2f} dB  ssim {row['val_ssim']:.4f}  {row['seconds']:.1f} s  left {int(left) // 60}:{int(left) % 60:02d}"
        )
