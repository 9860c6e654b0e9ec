"""One loop for every stage."""

import copy
import math
import time
from argparse import Namespace
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

import ranks
from algo_functions import Meter
from analysis.figures import draw_grid
from batches import Images, build_loader
from physics.base import Physics
from physics.given import camera_for
from tables import OPTIMIZERS, SCHEDULES, Diverged, Stopped, UserError, bound, look_up
from training import checkpoint
from training.engine import Stop, seeded
from training.preparation import prepare
from training.run import Run
from training.tracking import Tracker

NOISE, VALIDATION, PROBE, _, DROPOUT = range(1, 6)  # streams of random numbers that a run draws from; the fourth is the preparation's


def learning_rate(args: Namespace, epoch: float, epochs: float) -> float:
    """At a fractional epoch of so many: linear warm-up, then the schedule over what is left."""
    warm = min(args.warmup, epochs / 2)
    if epoch < warm:
        return args.lr * epoch / warm
    return args.lr * bound(SCHEDULES, args.schedule, args)((epoch - warm) / (epochs - warm))


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """e <- d e + (1 - d) w, with a shorter memory in the first steps."""
    decay = min(decay, (1 + step) / (10 + step))
    for e, w in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if e.is_floating_point():
            e.lerp_(w, 1 - decay)
        else:
            e.copy_(w)


def nothing() -> None:
    """What is called between batches, unless something is."""


@torch.no_grad()
def outputs(network: nn.Module, physics: Physics, loader: DataLoader, device: torch.device, seed: int, check: Callable = nothing) -> Iterator:
    """Batch by batch: the batch, its measurements by one camera with the noise that the seed draws, and the network's output."""
    network.eval()
    generator = seeded(seed, VALIDATION)
    for k, batch in enumerate(loader):
        check()
        batch = {name: value.to(device) for name, value in batch.items()}
        y = physics.take(batch, generator)  # by every process, so that all draw the same noise
        if k % ranks.world() == ranks.rank() % ranks.world():
            yield batch, y, network(physics.first_image(y))


def evaluate(
    network: nn.Module, physics: Physics, loader: DataLoader, device: torch.device, seed: int, meter: Meter, check: Callable = nothing
) -> Meter:
    """Scores of every image of a split, once for each camera that the network has to cope with."""
    for part in physics.parts:
        for batch, _, output in outputs(network, part, loader, device, seed, check):
            meter.add(output, batch[meter.target])
    return meter.gathered()


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
    """The state of a training: stage, optimiser, average, metrics so far. The meter says what is scored, and what is best."""

    def __init__(
        self,
        stage: nn.Module,
        recipe: dict,
        splits: dict[str, Images],
        args: Namespace,
        run: Run,
        before_export: Callable | None = None,
        meter: type[Meter] = Meter,
    ):
        self.stage, self.recipe, self.args, self.run, self.before_export, self.meter = stage, recipe, args, run, before_export, meter
        self.train = build_loader(splits["train"], args.batch_size * args.accumulate, args.num_workers, shuffle_seed=args.seed)
        self.val = build_loader(splits["val"], args.batch_size, args.num_workers)
        self.camera = camera_for(splits["val"], stage.physics, stage.student)
        self.device = next(stage.student.parameters()).device
        momentum = {"momentum": 0.9} if args.optimizer == "sgd" else {}
        self.weights = [w for w in stage.parameters() if w.requires_grad]
        optimizer = look_up(OPTIMIZERS, args.optimizer, "optimizer")
        self.optimizer = optimizer(self.weights, lr=args.lr, weight_decay=args.weight_decay, **momentum)
        self.average = copy.deepcopy(stage.student) if args.ema else None
        self.rows: list[dict] = []
        self.prepared: dict = {}
        self.images = [len(splits[name]) for name in ("train", "val")]
        self.steps, self.total = 0, args.steps or args.epochs * len(self.train)
        self.stream, self.sums, self.scored = self._batches(), {}, meter()

    @property
    def epoch(self) -> float:
        """Passes over the training images so far."""
        return self.steps / len(self.train)

    def _batches(self, back: int = 0) -> Iterator[dict]:
        """Batches from the present step on, or from some before it, for ever."""
        while True:
            self.train.dataset.epoch, self.train.batch_sampler.first = divmod(self.steps - back, len(self.train))
            for batch in self.train:
                yield {name: value.to(self.device) for name, value in batch.items()}

    @property
    def network(self) -> nn.Module:
        """What is evaluated and exported."""
        return self.stage.student if self.average is None else self.average

    def state(self) -> dict:
        average = None if self.average is None else self.average.state_dict()
        modules = {"stage": self.stage.state_dict(), "optimizer": self.optimizer.state_dict(), "average": average}
        far = {"rows": self.rows, "steps": self.steps, "images": self.images, "prepared": self.prepared}
        return modules | far | {"sums": self.sums, "scored": copy.copy(self.scored).gathered().state()}

    def load(self, state: dict) -> None:
        if state.get("images", self.images) != self.images:
            began, now = (" and ".join(map(str, counts)) for counts in (state["images"], self.images))
            raise UserError(f"run {self.run.name} began with {began} training and validation images, now there are {now}: --no-resume starts again")
        self.stage.load_state_dict(state["stage"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.rows, self.steps, self.prepared = state["rows"], state["steps"], state.get("prepared", {})
        if "sums" in state:
            self.sums = state["sums"]
            if not ranks.rank():  # it has the scores of all
                self.scored.load(state["scored"])

    def step(self, batch: dict) -> dict:
        """One update by the mean gradient of a batch, in parts of --batch_size; the values are means over the batch."""
        args, count = self.args, len(batch["image"])
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(args, self.epoch + 0.5 / len(self.train), self.total / len(self.train))
        self.stage.progress, self.stage.epoch = self.steps / self.total, self.epoch
        torch.manual_seed(seeded(args.seed, DROPOUT, self.steps).initial_seed())
        generator = seeded(args.seed, NOISE, self.steps)
        values, outputs = {}, []
        batch = self.stage.see(batch, generator)  # all of it at once: noise does not depend on the parts
        places = torch.arange(count)[list(ranks.share(count))]
        joined = max(1, ranks.world() - 1)  # images of a last batch that may have joined the one before it
        parts = max(1, min(-(-(count - joined) // args.batch_size), count // ranks.world()))
        for part in places.tensor_split(parts):  # as many in every process
            result, share = self.forward({name: value[part] for name, value in batch.items()}, generator), len(part) / count
            (share * result["loss"]).backward()
            for name, value in {"loss": result["loss"], **result["terms"], **result.get("metrics", {})}.items():
                values[name] = values.get(name, 0.0) + share * value.item()
            outputs.append(result["output"].detach())
        values = dict(zip(values, ranks.total(torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)).tolist(), strict=True))
        ranks.add_gradients(self.weights)
        norm = nn.utils.clip_grad_norm_(self.weights, args.grad_clip or math.inf).item()
        if not math.isfinite(norm + values["loss"]):
            bad = [name for name in result["terms"] if not math.isfinite(values[name])] or ["a gradient"]
            self.diverge(", ".join(bad), f"step {self.steps + 1}, a batch of training images {' '.join(map(str, batch['index'].tolist()))}")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            update_average(self.average, self.stage.student, args.ema, self.steps)
        self.steps += 1
        return values | {"output": torch.cat(outputs), "places": places}

    def forward(self, batch: dict, generator: torch.Generator) -> dict:
        try:
            return self.stage(batch, generator)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise UserError(f"a batch of {len(batch['image'])}: {error}; choose another --batch_size") from None

    def diverge(self, what: str, where: str) -> None:
        raise Diverged(f"{what} is not finite in epoch {self.epoch:.2f}, {where}; the checkpoints before it are kept in {self.run.folder}")

    def round(self, last: int, bar: tqdm) -> dict:
        """Updates up to a step; the means over their images, and each term's share of the gradient at the end."""
        args, batch = self.args, None
        self.stage.train()
        while self.steps < last:
            batch = next(self.stream)
            values = self.step(batch)
            self.scored.add(values.pop("output"), batch[self.meter.target][values.pop("places")])
            for name, value in {**values, "images": 1}.items():
                self.sums[name] = self.sums.get(name, 0.0) + value * len(batch["image"])
            if args.save_every and self.steps % args.save_every == 0 and self.steps < last:
                self.save_state()
            self.stop.check()
            bar.update()
            bar.set_postfix(
                {"loss": f"{self.sums['loss'] / self.sums['images']:.2e}", self.meter.drawn[0]: f"{self.scored.latest():.2f}"}, refresh=False
            )
            if args.log_every and self.steps % args.log_every == 0:
                tqdm.write(f"step {self.steps:>6}/{self.total}  " + "  ".join(f"{name} {value:.3e}" for name, value in values.items()))
                self.tracker.log({"step": self.steps, **{f"step_{name}": value for name, value in values.items()}})
        batch = batch or next(self._batches(back=1))  # of a round that was stopped after its last step
        scores = {f"train_{name}": value for name, value in self.scored.gathered().quick().items()}
        some = {name: value[: args.batch_size] for name, value in batch.items()}
        with ranks.apart():
            shares = gradient_shares(self.stage, some, seeded(args.seed, PROBE, self.steps))
        means = {f"train_{name}": value / self.sums["images"] for name, value in self.sums.items() if name != "images"}
        return means | scores | means | shares  # the loss is the one that is minimised

    def __call__(self) -> dict:
        """Trains to the last epoch, from where an interrupted run stopped; the best on validation is exported."""
        run, args = self.run, self.args
        saved = run.begin()
        done = saved["resume"]["steps"] if saved else 0
        self.tracker = Tracker(args.wandb, args.wandb_project, run.name, run.record["wandb_id"], run.folder, run.identity, args.tensorboard, done)
        with Stop() as self.stop:
            if saved is not None:
                self.load(saved["resume"])
                if self.rows:
                    run.log(self.rows, self.meter.drawn)
                print(f"run {run.name} goes on after step {self.steps} of {self.total}")
            if not self.steps:
                prepare(self.stage, self.train, self.stop, args, run, self.device, self.prepared, self.save_state)
            try:
                self.go_on()
            except Stopped as signal:
                self.save_state()
                raise Stopped(f"{signal}; step {self.steps} of {self.total} is saved in {run.folder}, the same command goes on") from None
        best = max(self.rows, key=self.meter.worth)
        scores = {name: value for name, value in best.items() if name.startswith("val_")}
        return run.finish(scores | {"best_epoch": best["epoch"], "epochs": self.epoch})

    def go_on(self) -> None:
        """Rounds of updates, each with a validation behind it, to the last step."""
        args = self.args
        every = args.val_every or len(self.train)
        with tqdm(total=self.total, initial=self.steps, disable=None, leave=False, unit="step") as bar:
            while self.steps < self.total or self.sums:
                began = time.perf_counter()
                seen = self.rows[-1]["step"] if self.rows else 0
                values = self.round(min(self.total, seen + every), bar)
                row = {"epoch": round(self.epoch, 4), "step": self.steps, "lr": self.optimizer.param_groups[0]["lr"], **values}
                self.agree()
                scores = evaluate(self.network, self.camera, self.val, self.device, args.seed, self.meter(), self.stop.check).summary()
                row |= {f"val_{name}": scores[name] for name in self.meter.columns}
                row["seconds"] = round(time.perf_counter() - began, 3)
                self.rows.append(row)
                self.sums, self.scored = {}, self.meter()
                self.save(scores)
                self.draw(getattr(args, "save_images", 0))  # a classifier makes no pictures
                self.tracker.log(row)
                tqdm.write(self.line(row))
        self.tracker.close()
        if self.before_export is not None:
            self.before_export()

    def save(self, scores: dict) -> None:
        """The best so far, then the last, then the metrics: what is read again is never ahead of what it needs."""
        content = self.content(scores)
        if self.rows[-1] is max(self.rows, key=self.meter.worth):  # the first one of several
            checkpoint.write(self.run.best, content)
        self.save_state(content)
        self.run.log(self.rows, self.meter.drawn)

    def save_state(self, content: dict | None = None) -> None:
        """The last state, and the one before it."""
        self.agree()
        checkpoint.write(self.run.last, (content or self.content()) | {"resume": self.state()}, self.run.before)

    def agree(self) -> None:
        """All processes have what is scored and saved."""
        for module in (self.stage, self.average):
            ranks.average_statistics(module)

    def content(self, scores: dict | None = None) -> dict:
        """What is saved of the network, whose numbers are finite."""
        content = checkpoint.pack(self.network, self.recipe, self.stage.physics, self.run.identity, epoch=round(self.epoch, 4), scores=scores)
        bad = [name for name, tensor in content["weights"].items() if not tensor.isfinite().all()]
        return self.diverge(f"weight {bad[0]}", f"step {self.steps}") if bad else content

    def draw(self, count: int) -> None:
        """Some validation images as they are restored now."""
        if count:
            camera, kept = self.camera.parts[0], []
            for batch, y, output in outputs(self.network, camera, self.val, self.device, self.args.seed):
                kept.append((batch["image"], camera.back_projection(y), output))
                if sum(len(image) for image, *_ in kept) >= count:
                    break
            truth, first, output = (torch.cat(images)[:count] for images in zip(*kept, strict=True))
            draw_grid({"first image": first, "network": output}, truth, self.run.folder / "images" / f"step_{self.steps:07d}.png")

    def line(self, row: dict) -> str:
        """An epoch in one line."""
        before = self.rows[-2]["step"] if len(self.rows) > 1 else 0
        left = (self.total - self.steps) / (self.steps - before) * row["seconds"]
        return (
            f"epoch {row['epoch']:>3g}/{self.total / len(self.train):g}  loss {row['train_loss']:.3e}  {self.meter.told(row)}  "
            f"{row['seconds']:.1f} s  left {int(left) // 60}:{int(left) % 60:02d}"
        )
