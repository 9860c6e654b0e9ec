"""One loop for every stage."""

import copy
import math
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from tqdm import tqdm

from algo_functions import Meter
from core import distributed
from core.errors import Diverged, Stopped, UserError
from core.registry import OPTIMIZERS, SCHEDULES, bound
from core.runtime import DROPOUT, NOISE, PROBE, Stop, compiled, data_seed, precision, seeded
from data.batches import Images, build_loader, room_on
from models.base import FirstImage
from physics.paired import physics_for
from report.figures import draw_grid, psnr_notes, select_detailed
from training import checkpoint
from training.cache import Memory, Views, on, size_of
from training.pretrain import prepare
from training.run import Run
from training.tracking import Tracker

READ_EVERY = 20  # steps between two looks at what a GPU has computed
CHOICE = 8  # validation images among which each of those of --save_images is chosen
DRAW_EVERY = 30  # seconds between two pictures of the curves, each of which takes more than one


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


def outputs(network: nn.Module, views: Iterable) -> Iterator[tuple[dict, Tensor, Tensor]]:
    """Batch by batch of a split: the batch, its measurements, and the network's output."""
    network.eval()
    for batch, y, x0 in views:
        with torch.no_grad():
            output = network(x0)
        yield batch, y, output


def evaluate(
    network: nn.Module, views: Iterable, meter: Meter, check: Callable[[], None] = lambda: None
) -> Meter:
    """Scores of every image of a split, once for each camera that the network has to cope with."""
    for batch, _, output in outputs(network, views):
        meter.add(output, batch[meter.target])
        check()
    return meter.gathered()


def gradient_shares(stage: nn.Module, batch: dict, generator: torch.Generator) -> dict[str, float]:
    """‖gradient of a term‖ / sum of these norms, over the student's weights, on one batch."""
    stage.eval()
    weights = [w for w in stage.student.parameters() if w.requires_grad]
    norms = {}
    for name, term in stage(batch, generator)["terms"].items():
        grads = (
            torch.autograd.grad(term, weights, retain_graph=True, allow_unused=True)
            if term.requires_grad
            else []
        )
        norms[name] = math.sqrt(
            sum(g.double().square().sum().item() for g in grads if g is not None)
        )
    total = sum(norms.values()) or 1.0
    return {f"share_{name}": norm / total for name, norm in norms.items()}


class Fit:
    """The state of a training: stage, optimiser, average, metrics so far. The meter says what is scored, and what is best.

    `beside` is a training that looks at the same images in the same way: what is remembered of them is shared.
    """

    def __init__(
        self,
        stage: nn.Module,
        config: dict,
        splits: dict[str, Images],
        args: Namespace,
        run: Run,
        before_export: Callable | None = None,
        meter: type[Meter] = Meter,
        companion: "Fit | None" = None,
    ):
        self.stage, self.config, self.splits, self.args, self.run = stage, config, splits, args, run
        self.before_export, self.meter = before_export, meter
        self.device, self.data_seed = next(stage.student.parameters()).device, data_seed(args)
        self.train = build_loader(
            splits["train"],
            args.batch_size * args.accumulate,
            args.num_workers,
            shuffle_seed=self.data_seed,
        )
        self.val = build_loader(splits["val"], args.batch_size, args.num_workers)
        self.camera = physics_for(splits["val"], stage.physics, stage.student)
        self.weights = [w for w in stage.parameters() if w.requires_grad]
        momentum = {"momentum": 0.9} if args.optimizer == "sgd" else {}
        optimizer = bound(OPTIMIZERS, args.optimizer, args)
        self.optimizer = optimizer(
            self.weights, lr=args.lr, weight_decay=args.weight_decay, fused=True, **momentum
        )
        self.precision = precision(args.amp, self.device)
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=self.precision is torch.float16
        )
        self.average = copy.deepcopy(stage.student) if args.ema else None
        if args.compile:
            for network in (
                stage.student,
                *(teacher.network for teacher in getattr(stage, "guides", ())),
            ):
                network.features = compiled(network.features)
        self.rows: list[dict] = []
        self.prepared: dict = {}
        self.images = [len(splits[name]) for name in ("train", "val")]
        self.per_epoch = args.repeat * len(self.train)
        self.steps, self.total = 0, args.steps or args.epochs * self.per_epoch
        self.sums, self.scored, self.unread = {}, meter(), []
        if companion is None:
            self.remember(splits)
        else:
            self.memory, self.views = companion.memory, companion.views
        self.companion, self.first_image, self.curves_at = companion, None, time.perf_counter()

    def remember(self, splits: dict[str, Images]) -> None:
        """Decodes images once, and computes once what of them never changes, where that is asked for more than once."""
        place = torch.device("cpu") if self.args.num_workers else self.device
        for images in splits.values():
            images.hold(place, room_on)
        room = self.args.cache * 2**30 if self.total > len(self.train) else 0
        self.memory = Memory(
            self.stage, splits["train"], self.args.batch_size, self.device, room, self.in_precision
        )
        self.views = Views(
            self.camera, self.val, self.device, self.data_seed, room - size_of(self.memory.kept)
        )

    def in_precision(self) -> torch.autocast:
        """Where convolutions compute in the type that --amp stands for."""
        return torch.autocast(self.device.type, self.precision, enabled=self.precision is not None)

    @property
    def epoch(self) -> float:
        """Epochs so far, of --repeat passes over the training images."""
        return self.steps / self.per_epoch

    def batches(self, step: int) -> Iterator[dict]:
        """Batches from a step on, for ever; each pass over the images has its own order and augmentation."""
        while True:
            self.train.dataset.epoch, self.train.batch_sampler.first = divmod(step, len(self.train))
            for batch in self.train:
                yield self.memory.add(on(self.device, batch))
                step += 1

    @property
    def network(self) -> nn.Module:
        """What is evaluated and exported."""
        return self.stage.student if self.average is None else self.average

    def state(self) -> dict:
        average = None if self.average is None else self.average.state_dict()
        modules = {
            "stage": self.stage.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": average,
            "scaler": self.scaler.state_dict(),
        }
        far = {
            "rows": self.rows,
            "steps": self.steps,
            "images": self.images,
            "prepared": self.prepared,
        }
        return (
            modules | far | {"sums": self.sums, "scored": copy.copy(self.scored).gathered().state()}
        )

    def load(self, state: dict) -> None:
        if state.get("images", self.images) != self.images:
            began, now = (
                " and ".join(map(str, counts)) for counts in (state["images"], self.images)
            )
            raise UserError(
                f"run {self.run.name} began with {began} training and validation images, now there are {now}: --no-resume starts again"
            )
        self.stage.load_state_dict(state["stage"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state.get("scaler", {}))
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.rows, self.steps, self.prepared = (
            state["rows"],
            state["steps"],
            state.get("prepared", {}),
        )
        if "sums" in state:
            self.sums = state["sums"]
            if not distributed.rank():  # it has the scores of all
                self.scored.load(state["scored"])

    def step(self, batch: dict) -> tuple[Tensor, Tensor]:
        """One update by the mean gradient of a batch, in parts of --batch_size; outputs, and their places in the batch."""
        args, count = self.args, len(batch["image"])
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(
                args, self.epoch + 0.5 / self.per_epoch, self.total / self.per_epoch
            )
        self.stage.progress, self.stage.epoch = self.steps / self.total, self.epoch
        torch.manual_seed(seeded(args.seed, DROPOUT, self.steps).initial_seed())
        generator = seeded(self.data_seed, NOISE, self.steps)
        values, outputs = 0.0, []
        batch = self.stage.seat(
            self.stage.see(batch, generator)
        )  # all of it at once: noise does not depend on the parts
        places = torch.arange(count)[list(distributed.share(count))]
        joined = max(
            1, distributed.world() - 1
        )  # images of a last batch that may have joined the one before it
        parts = max(1, min(-(-(count - joined) // args.batch_size), count // distributed.world()))
        for part in places.tensor_split(parts):  # as many in every process
            result, share = (
                self.forward({name: value[part] for name, value in batch.items()}, generator),
                len(part) / count,
            )
            self.scaler.scale(share * result["loss"]).backward()
            told = {"loss": result["loss"], **result["terms"], **result.get("metrics", {})}
            values = values + share * torch.stack(
                [value.detach().double() for value in told.values()]
            )
            outputs.append(result["output"].detach())
        distributed.add_gradients(self.weights)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.weights, args.grad_clip or math.inf)
        self.watch(
            list(told), list(result["terms"]), distributed.total(values), norm, batch["index"]
        )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            update_average(self.average, self.stage.student, args.ema, self.steps)
        self.steps += 1
        return torch.cat(outputs), places

    def forward(self, batch: dict, generator: torch.Generator) -> dict:
        try:
            with self.in_precision():
                return self.stage(batch, generator)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise UserError(
                f"a batch of {len(batch['image'])}: {error}; choose another --batch_size"
            ) from None

    def shown(self, batch: dict) -> dict:
        """A batch with what all students see of it, and are taught."""
        batch = self.stage.see(batch, seeded(self.data_seed, NOISE, self.steps))
        with self.in_precision():
            return self.stage.teach(batch)

    def watch(
        self, names: list[str], terms: list[str], values: Tensor, norm: Tensor, index: Tensor
    ) -> None:
        """No step is taken by what is not finite; which step it was is read at once, or on a GPU, which must not wait, some steps later."""
        scaled = (
            self.scaler.is_enabled()
        )  # its first gradients may overflow: it takes no step by them, and tries a smaller scale
        bad = ~(values[0] if scaled else values[0] + norm).isfinite()
        self.unread.append(
            (self.steps, names, terms, torch.cat((values, bad.double()[None])), index)
        )
        if self.device.type == "cpu":
            self.read()
        elif not scaled:
            self.optimizer.found_inf = bad.float()  # by which fused optimisers skip a step

    def read(self) -> None:
        """Adds up what the steps since the last reading told."""
        for (step, names, terms, _, index), (*values, bad) in zip(
            self.unread, torch.stack([told[3] for told in self.unread]).tolist(), strict=True
        ):
            self.latest = dict(zip(names, values, strict=True))
            if bad:
                what = [name for name in terms if not math.isfinite(self.latest[name])] or [
                    "a gradient"
                ]
                self.diverge(
                    ", ".join(what),
                    f"step {step + 1}, a batch of training images {' '.join(map(str, index.tolist()))}",
                )
            for name, value in {**self.latest, "images": 1}.items():
                self.sums[name] = self.sums.get(name, 0.0) + value * len(index)
        self.unread = []

    def diverge(self, what: str, where: str) -> None:
        raise Diverged(
            f"{what} is not finite in epoch {self.epoch:.2f}, {where}; the checkpoints before it are kept in {self.run.folder}"
        )

    def round(self, last: int, bar: tqdm) -> Iterator:
        """Updates by the batches that it is sent, up to a step; the means over their images, and each term's share of the gradient at the end."""
        args, batch = self.args, None
        self.stage.train()
        while self.steps < last:
            batch = yield
            output, places = self.step(batch)
            self.scored.add(output, batch[self.meter.target][places])
            saves, logs = (
                (every and self.steps % every == 0) for every in (args.save_every, args.log_every)
            )
            if self.unread and (
                saves or logs or len(self.unread) == READ_EVERY or self.steps == last
            ):
                self.read()
            bar.update()
            if not self.unread:
                shown = {
                    "loss": f"{self.sums['loss'] / self.sums['images']:.2e}",
                    self.meter.drawn[0]: f"{self.scored.latest():.2f}",
                }
                bar.set_postfix(shown, refresh=False)
            if logs:
                tqdm.write(
                    f"step {self.steps:>6}/{self.total}  "
                    + "  ".join(f"{name} {value:.3e}" for name, value in self.latest.items())
                )
                self.tracker.log(
                    {
                        "step": self.steps,
                        **{f"step_{name}": value for name, value in self.latest.items()},
                    }
                )
            if saves and self.steps < last:
                self.save_state()
            self.stop.check()
        batch = batch or next(
            self.batches(self.steps - 1)
        )  # of a round that was stopped after its last step
        scores = {f"train_{name}": value for name, value in self.scored.gathered().quick().items()}
        generator = seeded(self.data_seed, PROBE, self.steps)
        some = {
            name: value[: args.batch_size]
            for name, value in batch.items()
            if name != "x0" and "/" not in name
        }  # as it was loaded
        some = self.stage.seat(self.stage.see(self.memory.add(some), generator))
        with distributed.single_process(), self.in_precision():
            shares = gradient_shares(self.stage, some, generator)
        means = {
            f"train_{name}": value / self.sums["images"]
            for name, value in self.sums.items()
            if name != "images"
        }
        return means | scores | means | shares  # the loss is the one that is minimised

    def begin(self, stop: Stop) -> None:
        """From where an interrupted run stopped."""
        run, args, self.stop = self.run, self.args, stop
        saved = run.begin()
        if saved is not None:
            self.load(saved["resume"])
            if self.rows:
                run.log(self.rows)
            print(f"run {run.name} goes on after step {self.steps} of {self.total}")
        self.tracker = Tracker(
            args.wandb,
            args.wandb_project,
            run.name,
            run.record["wandb_id"],
            run.folder,
            run.identity,
            args.tensorboard,
            self.steps,
        )

    def go_on(self) -> Iterator:
        """Rounds of updates by the batches that it is sent, each with a validation behind it, to the last step."""
        args = self.args
        if not self.steps:
            prepare(
                self.stage,
                self.train,
                self.memory,
                self.stop,
                args,
                self.run,
                self.device,
                self.prepared,
                self.save_state,
            )
        every = args.val_every or self.per_epoch
        self.first_image = self.score_first_image()
        self.curves_at = time.perf_counter()
        with tqdm(
            total=self.total, initial=self.steps, disable=None, leave=False, unit="step"
        ) as bar:
            while self.steps < self.total or self.sums:
                began = time.perf_counter()
                seen = self.rows[-1]["step"] if self.rows else 0
                values = yield from self.round(min(self.total, seen + every), bar)
                row = {
                    "epoch": round(self.epoch, 4),
                    "step": self.steps,
                    "lr": self.optimizer.param_groups[0]["lr"],
                    **values,
                }
                self.agree()
                meter = self.meter(task=self.stage.task)
                scores = evaluate(self.network, self.views, meter, self.stop.check_alone).summary()
                row |= {f"val_{name}": scores[name] for name in ("task_loss", *meter.columns)}
                row["seconds"] = round(time.perf_counter() - began, 3)
                self.rows.append(row)
                self.sums, self.scored = {}, self.meter()
                tqdm.write(self.line(row))  # before a full disk can end the run
                self.save(scores)
                self.draw(getattr(args, "save_images", 0))  # a classifier makes no pictures
                self.tracker.log(row)
                self.draw_in_between()

    def finish(self) -> dict:
        """The best on validation is exported."""
        self.tracker.close()
        self.draw_curves()
        if self.before_export is not None:
            self.before_export()
        best = max(self.rows, key=self.meter.selection_score)
        scores = {name: value for name, value in best.items() if name.startswith("val_")}
        return self.run.finish(scores | {"best_epoch": best["epoch"], "epochs": self.epoch})

    def save(self, scores: dict) -> None:
        """The best so far, then the last, then the metrics: what is read again is never ahead of what it needs."""
        content = self.content(scores)
        if self.rows[-1] is max(
            self.rows, key=self.meter.selection_score
        ):  # the first one of several
            checkpoint.write(self.run.best, content)
        self.save_state(content)
        self.run.log(self.rows)

    def save_state(self, content: dict | None = None) -> None:
        """The last state, and the one before it."""
        if self.unread:
            self.read()
        self.agree()
        checkpoint.write(
            self.run.last, (content or self.content()) | {"resume": self.state()}, self.run.before
        )

    def agree(self) -> None:
        """All processes have what is scored and saved."""
        for module in (self.stage, self.average):
            distributed.average_statistics(module)

    def content(self, scores: dict | None = None) -> dict:
        """What is saved of the network, whose numbers are finite."""
        content = checkpoint.pack(
            self.network,
            self.config,
            self.stage.physics,
            self.run.identity,
            epoch=round(self.epoch, 4),
            scores=scores,
        )
        bad = [name for name, tensor in content["weights"].items() if not tensor.isfinite().all()]
        return self.diverge(f"weight {bad[0]}", f"step {self.steps}") if bad else content

    def score_first_image(self) -> dict[str, float] | None:
        """The scores in validation of what the network is given, below which it has learnt nothing; a classifier has none."""
        if self.meter.target != "image":
            return None
        if self.companion is not None and self.companion.first_image is not None:
            return self.companion.first_image
        network = FirstImage(self.camera.parts[0].config["c"])
        scores = evaluate(network, self.views, self.meter(), self.stop.check_alone).summary()
        return {name: scores[name] for name in self.meter.columns}

    def draw_in_between(self) -> None:
        """Draws the curves where that is some time ago."""
        if time.perf_counter() - self.curves_at >= DRAW_EVERY:
            self.draw_curves()

    def draw_curves(self) -> None:
        self.run.draw(self.rows, self.meter, self.first_image)
        self.curves_at = time.perf_counter()

    def draw(self, count: int) -> None:
        """Some validation images as they are restored now."""
        if count:
            camera, images, kept = self.camera.parts[0], self.splits["val"], {}
            some = (images[k]["image"] for k in range(min(len(images), CHOICE * count)))
            places = select_detailed(some, count)
            views = Views(camera, self.val, self.device, self.data_seed)
            for batch, y, output in outputs(self.network, views):
                seen = zip(batch["image"], camera.back_projection(y), output, strict=True)
                kept |= dict(zip(batch["index"].tolist(), seen, strict=True))
                if kept.keys() >= set(places):
                    break
            truth, first, output = zip(*(kept[k] for k in places), strict=True)
            columns = {"first image": first, "network": output}
            path = self.run.folder / "images" / f"step_{self.steps:07d}.png"
            draw_grid(columns, truth, path, psnr_notes(columns, truth))

    def line(self, row: dict) -> str:
        """An epoch in one line."""
        before = self.rows[-2]["step"] if len(self.rows) > 1 else 0
        left = (self.total - self.steps) / (self.steps - before) * row["seconds"]
        return (
            f"epoch {row['epoch']:>3g}/{self.total / self.per_epoch:g}  loss {row['train_loss']:.3e}  {self.meter.told(row)}  "
            f"{row['seconds']:.1f} s  left {int(left) // 60}:{int(left) % 60:02d}"
        )


def train(fits: list[Fit]) -> list[dict]:
    """Trains to the last step, several beside each other: one batch, one look at it and one teacher's answer for all."""
    with Stop() as stop:
        for fit in fits:
            fit.begin(stop)
        try:
            keep_going(fits)
        except Stopped as signal:
            for fit in fits:
                if fit.steps:
                    fit.save_state()
            draw(fits)
            raise ended_by(str(signal), fits) from None
        except Diverged:
            draw(fits)
            raise
    return finished(fits)


def finished(fits: list[Fit]) -> list[dict]:
    """The scores of all; one that cannot be exported does not keep the others from it."""
    scores, refusals = [], []
    for fit in fits:
        try:
            scores.append(fit.finish())
        except UserError as refusal:
            refusals.append(str(refusal))
    if refusals:
        raise UserError("; ".join(refusals))
    return scores


def draw(fits: list[Fit]) -> None:
    """The curves of trainings that end here."""
    for fit in fits:
        fit.draw_curves()


def ended_by(signal: str, fits: list[Fit]) -> BaseException:
    """What is said after a signal: where the runs go on, or that nothing is saved yet."""
    saved = [fit for fit in fits if fit.steps or fit.run.last.is_file()]
    if not saved:
        return (
            KeyboardInterrupt()
            if signal == "SIGINT"
            else Stopped(f"{signal}; nothing is saved yet, the same command begins again")
        )
    where = ", ".join(
        f"step {fit.steps} of {fit.total} is saved in {fit.run.folder}" for fit in saved
    )
    return Stopped(f"{signal}; {where}, the same command goes on")


def keep_going(fits: list[Fit]) -> None:
    """Sends batches to those that are the farthest back, until all are done."""
    going, stream, place = {fit: fit.go_on() for fit in fits}, None, None

    def send(fit: Fit, batch: dict | None) -> None:
        try:
            going[fit].send(batch)
        except StopIteration:
            del going[fit]

    for fit in fits:
        send(fit, None)
    while going:
        step = min(fit.steps for fit in going)
        behind = [fit for fit in going if fit.steps == step]
        if step != place:
            stream, place = fits[0].batches(step), step
        batch, place = next(stream), place + 1
        if len(fits) > 1:
            batch = behind[0].shown(batch)
        for fit in behind:
            send(fit, batch)
