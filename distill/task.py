"""Tasks: a batch in, named loss terms out. The training loop knows no network, physics or loss."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, NamedTuple, TypedDict

import torch
from torch import Generator, Tensor, nn

from core.distributed import gather_samples, single_process
from core.errors import UserError
from core.runtime import full_precision
from data.batches import Batch, present
from distill import WeightedLoss
from distill.layers import Adapter, check_layers, selected_layers
from distill.recorded import Labels, Recorded, null_space
from distill.schedule import constant
from models.base import Network
from physics.base import Physics
from physics.single_pixel import SinglePixel

TaskLoss = Callable[[Tensor, Tensor], Tensor]


def total_of(tensors: Iterable[Tensor]) -> Tensor:
    return reduce(torch.add, tensors)


class Progress(NamedTuple):
    """How far a training is."""

    fraction: float = 0.0  # of all steps
    epoch: float = 0.0


BEGINNING = Progress()


class Losses(TypedDict):
    """What a task returns: `loss` is the sum of `terms`; `metrics` are logged and teach nothing."""

    loss: Tensor
    output: Tensor
    terms: dict[str, Tensor]
    metrics: dict[str, Tensor]


@dataclass(frozen=True)
class Teacher:
    """A teacher: its network, its physics, and how much it counts among several."""

    network: Network
    physics: Physics
    config: dict = field(default_factory=dict)  # what rebuilds the network
    weight: float = 1.0


class Task(nn.Module):
    """What a student learns from a batch: its network and physics, and the task loss.

    The loop calls `add_observations` on a whole batch, so that noise does not depend on how the
    batch is split, then `add_teacher_features` where answers are remembered, `shuffle_teachers`,
    and `forward` on parts of it. All of them take and return a `Batch`; `forward` fills in what is
    still missing.
    """

    teachers: tuple[Teacher, ...] = ()
    beta = 1.0  # the weight of the task loss

    def __init__(
        self,
        student: Network,
        physics: Physics,
        task_loss: TaskLoss,
        target: str,
        recorded: Labels | None = None,
    ):
        """`recorded` says what is learnt from recordings, whose images are not known."""
        super().__init__()
        self.student: Network = student
        self.physics: Physics = physics
        self.task_loss, self.target, self.recorded = task_loss, target, recorded

    def add_observations(self, batch: Batch, generator: Generator | None = None) -> Batch:
        """The batch with what every network sees of it."""
        raise NotImplementedError

    def add_teacher_features(self, batch: Batch) -> Batch:
        """The batch with the layers of frozen teachers that are compared."""
        return batch

    def shuffle_teachers(self, batch: Batch) -> Batch:
        """A whole batch with the teachers' parts of other images, where this is asked for."""
        return batch

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """What is learnt of the teachers before the student begins."""
        return []

    def pretrain(self, batch: Batch, generator: Generator | None = None) -> dict[str, Tensor]:
        """The losses of what is learnt before the student begins, by name."""
        return {}

    def forward(
        self, batch: Batch, generator: Generator | None = None, progress: Progress = BEGINNING
    ) -> Losses:
        raise NotImplementedError

    def label(self, batch: Batch, teacher_output: Tensor | None) -> Tensor | None:
        """What stands for the truth that is not known, or None where nothing does."""
        assert self.recorded is not None, "only recordings have labels"
        if self.recorded.target in ("teacher", "teacher_null_space"):
            return present(teacher_output)
        if self.recorded.target == "raw":
            return self.recorded.physics.back_projection(present(batch.recorded))
        return batch.of_target(self.target) if self.recorded.target else None

    def compare(self, output: Tensor, target: Tensor) -> Tensor:
        """The task loss."""
        with full_precision(output):
            return self.task_loss(output.float(), target)

    def recorded_terms(
        self, batch: Batch, output: Tensor, teacher_output: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The terms of recordings beside the distillation losses."""
        assert self.recorded is not None, "only recordings have these terms"
        terms, output = {}, output.float()
        anchored = self.recorded.target == "teacher_null_space"
        with full_precision(output):
            label = self.label(batch, teacher_output)
        if label is not None and not anchored:
            terms["task"] = self.beta * self.compare(output, label)
        if self.recorded.loss is not None:
            assert isinstance(self.physics, SinglePixel), "a recording is made by one camera"
            view = Recorded(self.recorded.physics, self.physics, self.student, batch)
            with full_precision(output):
                if anchored:
                    terms["task"] = self.beta * null_space(view, output, present(label))
                terms["recorded"] = self.recorded.weight * self.recorded.loss(view, output)
        return terms


class Supervised(Task):
    """loss = L(student(x0), target), or what recordings have instead of a target"""

    def __init__(
        self,
        student: Network,
        physics: Physics,
        task_loss: TaskLoss,
        target: str = "image",
        recorded: Labels | None = None,
    ):
        super().__init__(student, physics, task_loss, target, recorded)

    def add_observations(self, batch: Batch, generator: Generator | None = None) -> Batch:
        if batch.x0 is not None:
            return batch
        return batch.replace(x0=self.physics.observe_batch(batch, generator))

    def forward(
        self, batch: Batch, generator: Generator | None = None, progress: Progress = BEGINNING
    ) -> Losses:
        batch = self.add_observations(batch, generator)
        output = self.student(present(batch.x0))
        metrics = {}
        if self.recorded is not None:
            terms = self.recorded_terms(batch, output)
        else:
            terms = {"task": self.compare(output, batch.of_target(self.target))}
            metrics = {"task_loss": terms["task"].detach()}
        return {
            "loss": total_of(terms.values()),
            "output": output,
            "terms": terms,
            "metrics": metrics,
        }


class Comparison(NamedTuple):
    """One loss between a layer of the student and the same layer of one teacher."""

    loss: WeightedLoss
    layer: str
    teacher: int
    adapter: str  # the name of the adapter, or of the loss's own module, if there is one
    name: str


class Distillation(Task):
    """loss = beta L(student(x0_s), target) + alpha(progress) sum_ijk v_i w_j D_j(s_k, t_ik)

    over teachers i, losses j and the layers k that a selection names; s_k passes an adapter where
    the two shapes differ. A loss of weight 0 is a metric: it is computed and logged, and teaches
    nothing. The target is the batch's, or without `supervised` the teachers' output; of recordings
    it is what `recorded` says, with its loss on the recorded values beside it. An `online`
    teacher learns beside the student from its own task loss alone; any other is frozen and stays in
    eval mode. `shuffled` teachers are a control: each image is taught the answers for another one.
    With `unmeasured_only` the losses on the output compare (1 - A⁺A) x̂ alone, of the student's A:
    what no pattern of the student measured.
    """

    def __init__(
        self,
        student: Network,
        physics: Physics,
        teachers: Sequence[Teacher],
        *,
        selection: str,
        losses: Sequence[WeightedLoss],
        task_loss: TaskLoss,
        target: str = "image",
        alpha: float = 1.0,
        schedule: Callable[[float], float] = constant,
        beta: float = 1.0,
        supervised: bool = True,
        online: bool = False,
        shuffled: bool = False,
        unmeasured_only: bool = False,
        labels: Sequence[int] = (),
        recorded: Labels | None = None,
    ):
        """`labels`: the classes of the training images, for losses that remember these images."""
        super().__init__(student, physics, task_loss, target, recorded)
        self.teachers, self.losses = tuple(teachers), tuple(losses)
        self.alpha, self.schedule, self.beta = alpha, schedule, beta
        self.supervised, self.online, self.shuffled = supervised, online, shuffled
        self.unmeasured_only = unmeasured_only
        # A frozen teacher is not part of the task's state: it is neither trained nor saved.
        if online:
            (teacher,) = self.teachers
            self.teacher, self.physics_t = teacher.network, teacher.physics
        else:
            for teacher in self.teachers:
                teacher.network.requires_grad_(False).eval()
        self.same_measurements = [
            physics.same_measurements_as(teacher.physics) for teacher in self.teachers
        ]
        self.adapters = nn.ModuleDict()
        with single_process():
            self.comparisons = self._compare_examples(losses, selection, labels)
        if unmeasured_only and "output" not in self.layers:
            raise UserError(
                "dist_part unmeasured: no loss compares the output; choose a --type_dist with "
                "output, and a --loss_distill"
            )
        if unmeasured_only:
            self._check_null_space()

    @property
    def layers(self) -> list[str]:
        """The layers that are compared."""
        return list(dict.fromkeys(comparison.layer for comparison in self.comparisons))

    @torch.no_grad()
    def _compare_examples(
        self, losses: Sequence[WeightedLoss], selection: str, labels: Sequence[int]
    ) -> list[Comparison]:
        """What is compared; makes the adapters, and refuses at once what cannot be compared."""
        device = next(self.student.parameters()).device
        training = self.student.training
        self.student.eval()
        s, _ = self._example(self.student, self.physics, device)
        self.student.train(training)
        comparisons = []
        for i, teacher in enumerate(self.teachers):
            teacher.network.eval()
            t, teacher_input = self._example(teacher.network, teacher.physics, device)
            zeros = torch.zeros(len(teacher_input), dtype=torch.long, device=device)
            context = {
                "label": zeros,
                "index": zeros,
                "epoch": 0.0,
                "teacher_input": teacher_input,
                "generator": Generator().manual_seed(0),
            }
            prefix = f"{i}/" if len(self.teachers) > 1 else ""
            for loss in losses:
                chosen = loss.layers or selection
                layers = selected_layers(chosen, list(s), list(t))
                if not layers:
                    raise UserError(
                        f"loss '{loss.name}' has nothing to compare: student and teacher share no "
                        f"layer of --type_dist {chosen}; the student has {', '.join(s)}, the "
                        f"teacher {', '.join(t)}"
                    )
                for layer in layers:
                    name = f"{prefix}{loss.name}/{layer}"
                    kind = loss.spec.adapter
                    adapter = {"never": "", "auto": prefix + layer}.get(kind, name)
                    comparison = Comparison(loss, layer, i, adapter, name)
                    module = self._module(loss, s[layer], t[layer], teacher_input, labels)
                    if module is not None:
                        self.adapters[adapter] = module.to(device)
                    if kind != "own":
                        self.distance(comparison, s, t, context)
                    comparisons.append(comparison)
        return comparisons

    @staticmethod
    def _example(
        network: Network, physics: Physics, device: torch.device
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The layers of two black images, and the input of the network's first layer."""
        x0 = physics.to(device).parts[0].example(device)
        x0 = x0.expand(2, *x0.shape[1:])
        return network.features(x0), network.normalise(x0)

    @staticmethod
    def _module(
        loss: WeightedLoss, s: Tensor, t: Tensor, teacher_input: Tensor, labels: Sequence[int]
    ) -> nn.Module | None:
        """What is learnt or remembered between two layers: an adapter, or the loss itself."""
        kind = loss.spec.adapter
        if kind == "own":
            check_layers(loss.name, loss.spec.needs, s, t)
            return loss.distance(s.shape, t.shape, labels, teacher_input.shape)
        if kind == "always" or (kind == "auto" and s.shape != t.shape):
            return Adapter(s.shape[1], t.shape[1], kind == "always")
        return None

    def distance(
        self, comparison: Comparison, s: dict[str, Tensor], t: dict[str, Tensor], context: dict
    ) -> Tensor:
        """The value of a comparison; `context` holds what losses may read of the batch."""
        loss, spec = comparison.loss, comparison.loss.spec
        f_s, f_t = s[comparison.layer], t[comparison.layer].detach()
        if self.unmeasured_only and comparison.layer == "output":
            f_s, f_t = self.unmeasured_part(f_s), self.unmeasured_part(f_t)
        read = {name: context[name] for name in spec.reads}
        if spec.adapter != "own" and comparison.adapter in self.adapters:
            f_s, f_t = self.adapters[comparison.adapter](f_s, f_t)
        f_s, f_t = f_s.float(), f_t.float()
        if spec.gather:
            f_s, f_t = gather_samples(f_s), gather_samples(f_t)
            read = {
                name: gather_samples(value) if isinstance(value, Tensor) else value
                for name, value in read.items()
            }
        check_layers(loss.name, spec.needs, f_s, f_t)
        distance = self.adapters[comparison.adapter] if spec.adapter == "own" else loss.distance
        with full_precision(f_s):
            return distance(f_s, f_t, **read)

    def _check_null_space(self) -> None:
        """Refuses a physics that measures everything."""
        device = next(self.student.parameters()).device
        n, c = self.physics.config["n"], self.physics.config["c"]
        x = torch.rand(1, c, n, n, generator=Generator().manual_seed(0)).to(device)
        if self.unmeasured_part(x).abs().max() < 1e-3:
            raise UserError(
                f"dist_part unmeasured: physics '{self.physics.label}' measures everything, so "
                "nothing is left to compare"
            )

    def unmeasured_part(self, x: Tensor) -> Tensor:
        """(1 - A⁺A) x: what no pattern of the student measured."""
        with full_precision(x):
            measured = self.physics.project(x.float())
        if measured is None:
            raise UserError(
                f"dist_part unmeasured: physics '{self.physics.label}' has no linear measurements "
                "of one ratio, so what it does not measure is not defined"
            )
        return x - measured

    def observe(self, batch: Batch, generator: Generator | None) -> tuple[Tensor, list[Tensor]]:
        """What student and teachers see of the same images.

        All that measure the same values get the same noise; what sees the same is computed once.
        """
        before = None if generator is None else generator.get_state()
        views = {id(self.physics): self.physics.observe_batch(batch, generator)}
        for teacher, same in zip(self.teachers, self.same_measurements, strict=True):
            if id(teacher.physics) not in views:
                repeated = generator
                if same and before is not None:
                    repeated = Generator()
                    repeated.set_state(before)
                views[id(teacher.physics)] = teacher.physics.observe_batch(batch, repeated)
        return views[id(self.physics)], [views[id(t.physics)] for t in self.teachers]

    def add_observations(self, batch: Batch, generator: Generator | None = None) -> Batch:
        if batch.x0 is not None:
            return batch
        x0, teacher_x0 = self.observe(batch, generator)
        return batch.replace(x0=x0, teacher_x0=teacher_x0)

    @torch.no_grad()
    def add_teacher_features(self, batch: Batch) -> Batch:
        if self.online or batch.teacher_features is not None:
            return batch
        names = dict.fromkeys((*self.layers, "output"))
        answers = []
        for teacher, x0 in zip(self.teachers, present(batch.teacher_x0), strict=True):
            features = teacher.network.features(x0)
            answers.append({name: features[name] for name in names})
        return batch.replace(teacher_features=answers)

    def shuffle_teachers(self, batch: Batch) -> Batch:
        """Each image gets the teachers' parts of the one before it, in the batch's random order."""
        if not self.shuffled:
            return batch
        return batch.map(lambda tensor: tensor.roll(1, 0), only=("teacher_x0", "teacher_features"))

    def forward(
        self, batch: Batch, generator: Generator | None = None, progress: Progress = BEGINNING
    ) -> Losses:
        batch = self.add_teacher_features(self.add_observations(batch, generator))
        s = self.student.features(present(batch.x0))
        t = [self._features_of_teacher(batch, i) for i in range(len(self.teachers))]
        if self.recorded is not None:
            terms = self.recorded_terms(batch, s["output"], self.mean_output(t))
            metrics = {}
        else:
            terms, metrics = self._target_terms(batch, s["output"], t)
        alpha = self.alpha * self.schedule(progress.fraction)
        context = {
            "label": batch.label,
            "index": batch.index,
            "epoch": progress.epoch,
            "generator": generator,
        }
        for comparison in self.comparisons:
            teacher, weight = self.teachers[comparison.teacher], comparison.loss.weight
            if "teacher_input" in comparison.loss.spec.reads:
                x0 = present(batch.teacher_x0)[comparison.teacher]
                context["teacher_input"] = teacher.network.normalise(x0)
            value = self.distance(comparison, s, t[comparison.teacher], context)
            if weight:
                name = f"distill/{comparison.name}"
                terms[name] = alpha * teacher.weight * weight * value
            else:
                metrics[comparison.name] = value.detach()
        if self.online:
            terms["teacher"] = self.compare(t[0]["output"], batch.of_target(self.target))
        return {
            "loss": total_of(terms.values()),
            "output": s["output"],
            "terms": terms,
            "metrics": metrics,
        }

    def _target_terms(
        self, batch: Batch, output: Tensor, t: list[dict[str, Tensor]]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The task loss against target or teachers, and as a metric that against the target."""
        target = batch.of_target(self.target)
        loss = self.compare(output, target if self.supervised else self.mean_output(t))
        # Against the truth and without a weight, as it is computed on validation images.
        plain = loss if self.supervised else self.compare(output.detach(), target)
        return {"task": self.beta * loss}, {"task_loss": plain.detach()}

    def _features_of_teacher(self, batch: Batch, i: int) -> dict[str, Tensor]:
        if self.online:
            return self.teachers[i].network.features(present(batch.teacher_x0)[i])
        return present(batch.teacher_features)[i]

    def mean_output(self, t: list[dict[str, Tensor]]) -> Tensor:
        """The teachers' weighted mean output."""
        weights = [teacher.weight for teacher in self.teachers]
        weighted = [
            weight * layers["output"].detach().float()
            for weight, layers in zip(weights, t, strict=True)
        ]
        return total_of(weighted) / sum(weights)

    def _pretraining(self) -> list[Comparison]:
        """Comparisons by losses that learn of the teacher before the student begins."""
        return [c for c in self.comparisons if c.loss.spec.pretrain]

    def pretrained_parameters(self) -> list[nn.Parameter]:
        modules = [self._module_of(comparison) for comparison in self._pretraining()]
        return [weight for module in modules for weight in module.pretrained_parameters()]

    def _module_of(self, comparison: Comparison) -> Any:
        """The adapter of a comparison, or the loss's own module."""
        return self.adapters[comparison.adapter]

    def pretrain(self, batch: Batch, generator: Generator | None = None) -> dict[str, Tensor]:
        batch = self.add_teacher_features(self.add_observations(batch, generator))
        features = present(batch.teacher_features)
        return {
            c.name: self._module_of(c).pretrain(features[c.teacher][c.layer].float())
            for c in self._pretraining()
        }
