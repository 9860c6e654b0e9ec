"""One loop for every task."""

import copy
import math
import time
from argparse import Namespace
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from tqdm import tqdm

from algo_functions import ClassMeter, Meter
from checkpoints import checkpoint
from core import distributed
from core.errors import Diverged, Stopped, UserError
from core.registry import OPTIMIZERS, bound
from core.runtime import DROPOUT, NOISE, PROBE, Stop, compiled, data_seed, precision, seeded
from data.batches import Batch, Images, build_loader, bytes_of, free_memory
from distill.task import Losses, Progress, Task, total_of
from models.base import Network
from physics.paired import physics_for
from training.cache import Memory, Views
from training.closing import closing_lines
from training.plots import Plots
from training.pretrain import pretrain
from training.run import Run
from training.schedule import learning_rate
from training.tracking import Tracker
from training.validation import evaluate

READ_EVERY = 20  # steps between two looks at what a GPU has computed


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """e <- d e + (1 - d) w, with a shorter memory in the first steps."""
    decay = min(decay, (1 + step) / (10 + step))
    for e, w in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if e.is_floating_point():
            e.lerp_(w, 1 - decay)
        else:
            e.copy_(w)


def gradient_shares(
    task: Task, batch: Batch, generator: torch.Generator, progress: Progress
) -> dict[str, float]:
    """‖gradient of a term‖ / sum of these norms, over the student's weights, on one batch."""
    task.eval()
    weights = [w for w in task.student.parameters() if w.requires_grad]
    norms = {}
    for name, term in task(batch, generator, progress)["terms"].items():
        grads = (
            torch.autograd.grad(term, weights, retain_graph=True, allow_unused=True)
            if term.requires_grad
            else []
        )
        squares = [g.double().square().sum().item() for g in grads if g is not None]
        norms[name] = math.sqrt(sum(squares))
    total = sum(norms.values()) or 1.0
    return {f"share_{name}": norm / total for name, norm in norms.items()}


class Fit:
    """One training: its task, optimiser and weight average, and the metrics so far.

    Between two validations lies a round. `companion` is another training of the same images,
    physics and teachers: what is remembered of the images is shared with it.
    """

    def __init__(
        self,
        task: Task,
        network_config: dict,
        splits: dict[str, Images],
        args: Namespace,
        run: Run,
        before_export: Callable[[], None] | None = None,
        meter: Meter | ClassMeter | None = None,
        companion: "Fit | None" = None,
    ):
        self.task, self.network_config, self.splits = task, network_config, splits
        self.args, self.run, self.before_export = args, run, before_export
        self.meter = meter or Meter()  # an empty one, of the kind that scores outputs
        self.device = next(task.student.parameters()).device
        self.data_seed = data_seed(args)
        self.train = build_loader(
            splits["train"],
            args.batch_size * args.accumulate,
            args.num_workers,
            shuffle_seed=self.data_seed,
        )
        self.val = build_loader(splits["val"], args.batch_size, args.num_workers)
        self.val_physics = physics_for(splits["val"], task.physics, task.student)
        self.weights = [w for w in task.parameters() if w.requires_grad]
        momentum = {"momentum": 0.9} if args.optimizer == "sgd" else {}
        optimizer = bound(OPTIMIZERS, args.optimizer, args)
        self.optimizer = optimizer(
            self.weights, lr=args.lr, weight_decay=args.weight_decay, fused=True, **momentum
        )
        self.precision = precision(args.amp, self.device)
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=self.precision is torch.float16
        )
        self.average = copy.deepcopy(task.student) if args.ema else None
        if args.compile:
            for network in (task.student, *(teacher.network for teacher in task.teachers)):
                network.features = compiled(network.features)

        self.steps_per_epoch = args.repeat * len(self.train)
        self.steps, self.total = 0, args.steps or args.epochs * self.steps_per_epoch
        self.image_counts = [len(splits[name]) for name in ("train", "val")]
        self.rows: list[dict] = []  # an entry for each validation
        self.first_row: dict = {}  # of the network before the first step, where that is a candidate
        self.pretrained: dict = {}  # how far the pretraining is
        self.sums: dict[str, float] = {}  # of the logged values of this round, over its images
        self.scored = self.meter.new()  # of the outputs of this round
        self.unread: list[tuple] = []  # steps whose values have not been looked at
        self.latest: dict[str, float] = {}  # values of the last step that was looked at
        self.round_began, self.round_end = 0.0, 0
        self.bar: tqdm | None = None
        self.tracker: Tracker | None = None
        if companion is None:
            self.memory, self.views = self._remember(splits)
        else:
            self.memory, self.views = companion.memory, companion.views
        self.plots = Plots(companion.plots if companion else None)

    def _remember(self, splits: dict[str, Images]) -> tuple[Memory, Views]:
        """Decodes images once, and computes once what of them never changes."""
        place = torch.device("cpu") if self.args.num_workers else self.device
        for images in splits.values():
            images.hold(place, free_memory)
        room = self.args.cache * 2**30 if self.total > len(self.train) else 0
        memory = Memory(
            self.task, splits["train"], self.args.batch_size, self.device, room, self.in_precision
        )
        left = 0 if self.task.physics.learns else room - bytes_of(memory.kept)
        return memory, Views(self.val_physics, self.val, self.device, self.data_seed, left)

    def in_precision(self) -> torch.autocast:
        """Where convolutions compute in the type that --amp stands for."""
        return torch.autocast(self.device.type, self.precision, enabled=self.precision is not None)

    @property
    def epoch(self) -> float:
        """Epochs so far, of --repeat passes over the training images."""
        return self.steps / self.steps_per_epoch

    def progress(self, step: int) -> Progress:
        """How far the training is before a step."""
        return Progress(step / self.total, step / self.steps_per_epoch)

    @property
    def done(self) -> bool:
        return self.steps >= self.total and not self.sums

    @property
    def network(self) -> Network:
        """What is evaluated and exported."""
        return self.task.student if self.average is None else self.average

    # ---------------------------------------------------------------- state

    def state(self) -> dict:
        average = None if self.average is None else self.average.state_dict()
        return {
            "task": self.task.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": average,
            "scaler": self.scaler.state_dict(),
            "rows": self.rows,
            "first_row": self.first_row,
            "steps": self.steps,
            "images": self.image_counts,
            "prepared": self.pretrained,
            "sums": self.sums,
            "scored": copy.copy(self.scored).gathered().state(),
        }

    def load(self, state: dict) -> None:
        counts = state.get("images", self.image_counts)
        if counts != self.image_counts:
            before, now = (" and ".join(map(str, pair)) for pair in (counts, self.image_counts))
            raise UserError(
                f"run {self.run.name} began with {before} training and validation images, but now "
                f"there are {now}: --no-resume starts again"
            )
        self.task.load_state_dict(state["task"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state.get("scaler", {}))
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.rows, self.steps = state["rows"], state["steps"]
        self.first_row = state.get("first_row", {})
        self.pretrained = state.get("prepared", {})
        if "sums" in state:
            self.sums = state["sums"]
            if not distributed.rank():  # it has the scores of all processes
                self.scored.load(state["scored"])

    # ---------------------------------------------------------------- steps

    def batches(self, step: int) -> Iterator[Batch]:
        """Batches from a step on, for ever; each pass has its own order and augmentation."""
        while True:
            self.train.begin_at(*divmod(step, len(self.train)))
            for batch in self.train:
                yield self.memory.add(batch.to(self.device))
                step += 1

    def add_shared(self, batch: Batch) -> Batch:
        """A batch with what is the same for all runs: observations and teachers' answers."""
        noise = seeded(self.data_seed, NOISE, self.steps)
        batch = self.task.add_observations(batch, noise)
        with self.in_precision():
            return self.task.add_teacher_features(batch)

    def step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """One update by the mean gradient of a batch; its outputs, and their places in the batch.

        The batch is computed in parts of --batch_size.
        """
        args, count, progress = self.args, len(batch), self.progress(self.steps)
        for group in self.optimizer.param_groups:
            middle = self.epoch + 0.5 / self.steps_per_epoch
            group["lr"] = learning_rate(args, middle, self.total / self.steps_per_epoch)
        # Every process draws for images of its own.
        dropout = seeded(args.seed, DROPOUT, self.steps, distributed.rank())
        torch.manual_seed(dropout.initial_seed())
        noise = seeded(self.data_seed, NOISE, self.steps)
        # The whole batch is observed at once, so that its noise does not depend on the parts.
        batch = self.task.shuffle_teachers(self.task.add_observations(batch, noise))
        # Losses draw the same whether the noise was drawn here or for several runs together.
        generator = seeded(self.data_seed, NOISE, self.steps)
        values, outputs, logged = [], [], {}
        learns = self.task.physics.learns  # then all parts share the graph of their observations
        places = torch.arange(count)[list(distributed.share(count))]
        for part in places.tensor_split(self._count_parts(count)):
            share = len(part) / count
            losses = self.forward(batch.part(part), generator, progress)
            self.scaler.scale(share * losses["loss"]).backward(retain_graph=learns)
            terms = losses["terms"]
            logged = {"loss": losses["loss"], **terms, **losses["metrics"]}
            values.append(share * torch.stack([v.detach().double() for v in logged.values()]))
            outputs.append(losses["output"].detach())
        distributed.add_gradients(self.weights)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.weights, args.grad_clip or math.inf)
        total = distributed.total(total_of(values))
        self._watch(list(logged), list(terms), total, norm, batch.index)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            update_average(self.average, self.task.student, args.ema, self.steps)
        self.steps += 1
        return torch.cat(outputs), places

    def _count_parts(self, count: int) -> int:
        """Into how many parts a batch is split: as many in every process."""
        joined = max(1, distributed.world() - 1)  # images that a last batch may have gained
        parts = -(-(count - joined) // self.args.batch_size)
        return max(1, min(parts, count // distributed.world()))

    def forward(self, batch: Batch, generator: torch.Generator, progress: Progress) -> Losses:
        try:
            with self.in_precision():
                return self.task(batch, generator, progress)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise UserError(
                f"a batch of {len(batch)}: {error}; choose another --batch_size"
            ) from None

    def _watch(
        self, names: list[str], terms: list[str], values: Tensor, norm: Tensor, index: Tensor
    ) -> None:
        """Takes no step by what is not finite.

        On a CPU that is read at once; on a GPU, which must not wait, some steps later.
        """
        # The first scaled gradients may overflow: the scaler skips such a step by itself.
        scaled = self.scaler.is_enabled()
        bad = ~(values[0] if scaled else values[0] + norm).isfinite()
        checked = torch.cat((values, bad.double()[None]))
        self.unread.append((self.steps, names, terms, checked, index))
        if self.device.type == "cpu":
            self.read()
        elif not scaled:
            self.optimizer.found_inf = bad.float()  # by which fused optimisers skip a step

    def read(self) -> None:
        """Adds up the values of the steps since the last reading."""
        all_values = torch.stack([entry[3] for entry in self.unread]).tolist()
        for (step, names, terms, _, index), (*values, bad) in zip(
            self.unread, all_values, strict=True
        ):
            self.latest = dict(zip(names, values, strict=True))
            if bad:
                infinite = [name for name in terms if not math.isfinite(self.latest[name])]
                images = " ".join(map(str, index.tolist()))
                self.diverge(
                    ", ".join(infinite or ["a gradient"]),
                    f"step {step + 1}, a batch of training images {images}",
                )
            for name, value in {**self.latest, "images": 1}.items():
                self.sums[name] = self.sums.get(name, 0.0) + value * len(index)
        self.unread = []

    def diverge(self, what: str, where: str) -> None:
        raise Diverged(
            f"{what} is not finite in epoch {self.epoch:.2f}, {where}; "
            f"the checkpoints before it are kept in {self.run.folder}; try a smaller --lr"
        )

    # ---------------------------------------------------------------- the course of a training

    def begin(self) -> None:
        """Takes the run's folder, and goes on from where an interrupted run stopped."""
        run, args = self.run, self.args
        saved = run.begin()
        if saved is not None:
            self.load(saved["resume"])
            if self.rows:
                run.log(self.rows)
            print(f"run {run.name} resumes after step {self.steps} of {self.total}")
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

    def start(self, stop: Stop) -> None:
        """What comes before the first batch: pretraining, and the score of the first image."""
        if not self.steps:
            pretrain(
                self.task,
                self.train,
                self.memory,
                stop,
                self.args,
                self.run,
                self.device,
                self.pretrained,
                self.save_state,
            )
        self.plots.start(self, stop)
        if self.meter.counts_first and not self.steps:
            self._validate_first(stop)
        self.bar = tqdm(
            total=self.total, initial=self.steps, disable=None, leave=False, unit="step"
        )
        self._start_round()
        if self.sums and self.steps >= self.round_end:  # it was stopped before its validation
            self._end_round(next(self.batches(self.steps - 1)), stop)

    def update(self, batch: Batch, stop: Stop) -> None:
        """One step, and at the end of a round its validation."""
        output, places = self.step(batch)
        self.scored.add_batch(output, batch.part(places))
        last = self.steps == self.round_end
        saves, logs = (
            bool(every) and self.steps % every == 0
            for every in (self.args.save_every, self.args.log_every)
        )
        if self.unread and (saves or logs or last or len(self.unread) == READ_EVERY):
            self.read()
        self._show_step(logs)
        if saves and not last:
            self.save_state()
        stop.check()
        if last:
            self._end_round(batch, stop)

    def _show_step(self, logs: bool) -> None:
        """The progress bar, and where --log_every asks for it the values of the step."""
        assert self.bar is not None and self.tracker is not None, "a training begins by `start`"
        self.bar.update()
        if not self.unread:
            loss = self.sums["loss"] / self.sums["images"]
            score = {self.meter.curves[0]: f"{self.scored.latest():.2f}"}
            self.bar.set_postfix({"loss": f"{loss:.2e}"} | score, refresh=False)
        if logs:
            values = "  ".join(f"{name} {value:.3e}" for name, value in self.latest.items())
            tqdm.write(f"step {self.steps:>6}/{self.total}  {values}")
            named = {f"step_{name}": value for name, value in self.latest.items()}
            self.tracker.log({"step": self.steps, **named})

    def _start_round(self) -> None:
        before = self.rows[-1]["step"] if self.rows else 0
        every = self.args.val_every or self.steps_per_epoch
        self.round_began, self.round_end = time.perf_counter(), min(self.total, before + every)
        self.task.train()

    def _end_round(self, batch: Batch, stop: Stop) -> None:
        """Validates, saves and logs; `batch` is the last one that was learnt."""
        assert self.tracker is not None, "a training begins by `begin`"
        values = self._summary_of_round(batch)
        row = {
            "epoch": round(self.epoch, 4),
            "step": self.steps,
            "lr": self.optimizer.param_groups[0]["lr"],
            **values,
        }
        self._average_statistics()
        scores = self._validate(stop)
        row |= {f"val_{name}": scores[name] for name in self.meter.validated}
        row["seconds"] = round(time.perf_counter() - self.round_began, 3)
        self.rows.append(row)
        self.sums, self.scored = {}, self.meter.new()
        tqdm.write(self.line(row))  # before a full disk can end the run
        self.save(scores)
        self.plots.save_images(self)
        self.tracker.log(row)
        self.plots.draw_curves_in_between(self)
        if not self.done:
            self._start_round()

    def _validate(self, stop: Stop) -> dict[str, float]:
        meter = self.meter.new(task_loss=self.task.task_loss)
        return evaluate(self.network, self.views, meter, stop.check_alone).summary()

    def _validate_first(self, stop: Stop) -> None:
        """Scores and saves the network before its first step, as a candidate for the best one."""
        scores = self._validate(stop)
        values = {f"val_{name}": scores[name] for name in self.meter.validated}
        self.first_row = {"epoch": 0.0, "step": 0, **values}
        print(f"epoch   0, not adapted: {self.meter.format_scores(scores)}")
        checkpoint.write(self.run.best, self.content(scores))

    @property
    def candidates(self) -> list[dict]:
        """The rows of all validations."""
        return [self.first_row, *self.rows] if self.first_row else self.rows

    def _summary_of_round(self, batch: Batch) -> dict[str, float]:
        """The round's means over its images, its scores, and each term's share of the gradient."""
        quick = self.scored.gathered().quick()
        scores = {f"train_{name}": value for name, value in quick.items()}
        generator = seeded(self.data_seed, PROBE, self.steps)
        some = self.memory.add(batch.loaded().part(slice(self.args.batch_size)))
        some = self.task.shuffle_teachers(self.task.add_observations(some, generator))
        with distributed.single_process(), self.in_precision():
            progress = self.progress(self.steps - 1)
            shares = gradient_shares(self.task, some, generator, progress)
        images = self.sums["images"]
        means = {
            f"train_{name}": value / images for name, value in self.sums.items() if name != "images"
        }
        return means | scores | means | shares  # the loss is the one that is minimised

    def finish(self) -> dict:
        """Exports the network that was best on validation."""
        assert self.tracker is not None, "a training begins by `begin`"
        self.tracker.close()
        self.plots.draw_curves(self)
        if self.before_export is not None:
            self.before_export()
        best = max(self.candidates, key=self.meter.selection_score)
        scores = {name: value for name, value in best.items() if name.startswith("val_")}
        done = self.run.finish(scores | {"best_epoch": best["epoch"], "epochs": self.epoch})
        print(closing_lines(self, scores, self.run.export))
        return done

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()

    def save(self, scores: dict) -> None:
        """The best so far, then the last, then the metrics: each after what it depends on."""
        content = self.content(scores)
        best = max(self.candidates, key=self.meter.selection_score)  # the first of several
        if self.rows[-1] is best:
            checkpoint.write(self.run.best, content)
        self.save_state(content)
        self.run.log(self.rows)

    def save_state(self, content: dict | None = None) -> None:
        """The last state, and the one before it."""
        if self.unread:
            self.read()
        self._average_statistics()
        content = (content or self.content()) | {"resume": self.state()}
        checkpoint.write(self.run.last, content, self.run.before)

    def _average_statistics(self) -> None:
        """All processes get the mean of the running statistics, before they are scored or saved."""
        for module in (self.task, self.average):
            distributed.average_statistics(module)

    def content(self, scores: dict | None = None) -> dict:
        """What is saved of the network, whose numbers are finite."""
        content = checkpoint.pack(
            self.network,
            self.network_config,
            self.task.physics,
            self.run.identity,
            epoch=round(self.epoch, 4),
            scores=scores,
        )
        for name, tensor in content["weights"].items():
            if not tensor.isfinite().all():
                self.diverge(f"weight {name}", f"step {self.steps}")
        return content

    def line(self, row: dict) -> str:
        """An epoch in one line."""
        before = self.rows[-2]["step"] if len(self.rows) > 1 else 0
        left = int((self.total - self.steps) / (self.steps - before) * row["seconds"])
        epochs = self.total / self.steps_per_epoch
        return (
            f"epoch {row['epoch']:>3.4g}/{epochs:.4g}  loss {row['train_loss']:.3e}  "
            f"{self.meter.format_row(row)}  {row['seconds']:.1f} s  "
            f"left {left // 60}:{left % 60:02d}"
        )


def train(fits: list[Fit]) -> list[dict]:
    """Trains to the last step; several runs share batches, observations and teachers' answers."""
    with Stop() as stop:
        for fit in fits:
            fit.begin()
        try:
            for fit in fits:
                fit.start(stop)
            for batch, behind in shared_batches(fits):
                for fit in behind:
                    fit.update(batch, stop)
        except Stopped as signal:
            for fit in fits:
                if fit.steps:
                    fit.save_state()
            draw_curves(fits)
            raise interruption(str(signal), fits) from None
        except Diverged:
            draw_curves(fits)
            raise
        finally:
            for fit in fits:
                fit.close()
    return finish(fits)


def shared_batches(fits: list[Fit]) -> Iterator[tuple[Batch, list[Fit]]]:
    """Each batch with the runs that learn it: those that are farthest behind."""
    stream, place = iter(()), -1
    while unfinished := [fit for fit in fits if not fit.done]:
        step = min(fit.steps for fit in unfinished)
        behind = [fit for fit in unfinished if fit.steps == step]
        if step != place:
            stream, place = fits[0].batches(step), step
        batch, place = next(stream), place + 1
        yield behind[0].add_shared(batch) if len(fits) > 1 else batch, behind


def draw_curves(fits: list[Fit]) -> None:
    for fit in fits:
        fit.plots.draw_curves(fit)


def finish(fits: list[Fit]) -> list[dict]:
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


def interruption(signal: str, fits: list[Fit]) -> BaseException:
    """What ends a script after a signal: it says where the runs resume, if anything is saved."""
    saved = [fit for fit in fits if fit.steps or fit.run.last.is_file()]
    if not saved and signal == "SIGINT":
        return KeyboardInterrupt()
    if not saved:
        return Stopped(f"{signal}; nothing is saved yet, the same command starts again")
    where = ", ".join(
        f"step {fit.steps} of {fit.total} is saved in {fit.run.folder}" for fit in saved
    )
    return Stopped(f"{signal}; {where}, the same command resumes")
