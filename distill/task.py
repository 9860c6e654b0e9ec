"""Stages: a batch in, named loss terms out. The loop knows no network, no physics and no loss."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from core.distributed import single_process, together
from distill import Term
from distill.layers import Adapter, selected_layers
from distill.schedule import constant
from physics.base import Physics


class Guide(NamedTuple):
    """A teacher: its network, what it sees, and how much it counts among several."""

    network: nn.Module
    physics: Physics
    weight: float = 1.0


class Comparison(NamedTuple):
    """One loss between one tap of the student and the same tap of one teacher."""

    term: Term
    layer: str
    teacher: int
    adapter: str  # the name of the adapter, or of the loss's own module, if there is one
    name: str


class Supervised(nn.Module):
    """loss = L(student(x0), target)"""

    def __init__(
        self,
        student: nn.Module,
        physics: Physics,
        task: Callable[[Tensor, Tensor], Tensor],
        target: str = "image",
    ):
        super().__init__()
        self.student, self.physics, self.task, self.target = student, physics, task, target

    def prepared(self) -> list[nn.Parameter]:
        """What is learnt before the student: nothing."""
        return []

    def see(self, batch: dict, generator: Generator | None = None) -> dict:
        """The batch with what the student sees of it."""
        return (
            batch if "x0" in batch else batch | {"x0": self.physics.observe_batch(batch, generator)}
        )

    def teach(self, batch: dict) -> dict:
        """The batch, which has no teacher."""
        return batch

    def seat(self, batch: dict) -> dict:
        """The batch as it is learnt: as it is."""
        return batch

    def forward(self, batch: dict, generator: Generator | None = None) -> dict:
        batch = self.see(batch, generator)
        output = self.student(batch["x0"])
        loss = self.task(output, batch[self.target])
        metrics = {"task_loss": loss.detach()}
        return {"loss": loss, "output": output, "terms": {"task": loss}, "metrics": metrics}


class Distillation(nn.Module):
    """loss = beta L(student(x0_s), target) + alpha(progress) sum_i v_i sum_j w_j sum_k D_j(adapt_ijk(s_k), t_ik)

    over teachers i, losses j and the taps k that a selection names. A term of weight 0 is a metric: it is computed and named,
    and teaches nothing. The target is what the batch has under that name or, without `supervised`, the teachers' output. An
    `online` teacher learns beside the student, from its own task loss alone; any other is frozen and cannot leave eval mode.
    `shuffled` teachers are a control: each image is taught what they make of another one of its batch.
    """

    def __init__(
        self,
        student: nn.Module,
        physics: Physics,
        teachers: Sequence[Guide],
        *,
        selection: str,
        losses: Sequence[Term],
        task: Callable[[Tensor, Tensor], Tensor],
        target: str = "image",
        alpha: float = 1.0,
        schedule: Callable[[float], float] = constant,
        beta: float = 1.0,
        supervised: bool = True,
        online: bool = False,
        shuffled: bool = False,
        labels: Sequence[int] = (),
    ):
        """`labels` are the classes of the training images, for losses that remember them; range(N) makes each one of its own."""
        super().__init__()
        self.student, self.physics, self.teachers = student, physics, tuple(teachers)
        self.losses, self.task, self.target = tuple(losses), task, target
        self.progress, self.epoch, self.schedule = (
            0.0,
            0.0,
            schedule,
        )  # the loop tells how far the training is
        self.alpha, self.beta, self.supervised, self.online, self.shuffled = (
            alpha,
            beta,
            supervised,
            online,
            shuffled,
        )
        # A frozen teacher is no part of the stage's state: it is neither trained nor saved with the run.
        if online:
            ((self.teacher, self.physics_t, _),) = self.teachers
        else:
            for teacher in self.teachers:
                teacher.network.requires_grad_(False).eval()
        self.alike = [physics.same_measurements_as(teacher.physics) for teacher in self.teachers]
        self.adapters = nn.ModuleDict()
        with single_process():
            self.comparisons = self._dry_run(losses, selection, labels)

    @property
    def layers(self) -> list[str]:
        """The taps that are compared."""
        return list(dict.fromkeys(comparison.layer for comparison in self.comparisons))

    @torch.no_grad()
    def _dry_run(
        self, losses: Sequence[Term], selection: str, labels: Sequence[int]
    ) -> list[Comparison]:
        """What is compared, and the adapters and modules that this needs, made once and before the optimiser."""
        mode, device = self.student.training, next(self.student.parameters()).device
        self.student.eval()
        s, _ = self._example(self.student, self.physics, device)
        self.student.train(mode)
        comparisons = []
        for i, teacher in enumerate(self.teachers):
            teacher.network.eval()
            t, seen = self._example(teacher.network, teacher.physics, device)
            prefix = f"{i}/" if len(self.teachers) > 1 else ""
            zeros = torch.zeros(len(seen), dtype=torch.long, device=device)
            about = {
                "label": zeros,
                "index": zeros,
                "epoch": 0.0,
                "seen": seen,
                "generator": Generator().manual_seed(0),
            }
            for term in losses:
                for layer in selected_layers(term.layers or selection, list(s), list(t)):
                    name = f"{prefix}{term.name}/{layer}"
                    adapter = {"never": "", "differ": prefix + layer}.get(term.adapter, name)
                    comparison = Comparison(term, layer, i, adapter, name)
                    module = self._module(term, s[layer], t[layer], seen, labels)
                    if module is not None:
                        self.adapters[adapter] = module.to(device)
                    if term.adapter != "own":
                        self.distance(
                            comparison, s, t, about
                        )  # says at once what it cannot compare
                    comparisons.append(comparison)
        return comparisons

    @staticmethod
    def _example(network: nn.Module, physics: Physics, device: torch.device) -> tuple[dict, Tensor]:
        """The taps of two black images, and what the network's first layer sees of them."""
        seen = physics.to(device).parts[0].example(device)
        seen = seen.expand(2, *seen.shape[1:])
        return network.features(seen), network.normalise(seen)

    @staticmethod
    def _module(
        term: Term, s: Tensor, t: Tensor, seen: Tensor, labels: Sequence[int]
    ) -> nn.Module | None:
        """What is learnt or remembered between two taps: an adapter, or the loss itself."""
        if term.adapter == "own":
            return term.distance(s.shape, t.shape, labels, seen.shape)
        if term.adapter == "always" or (term.adapter == "differ" and s.shape != t.shape):
            return Adapter(s.shape[1], t.shape[1], term.adapter == "always")
        return None

    def distance(self, comparison: Comparison, s: dict, t: dict, about: dict) -> Tensor:
        """The value of a comparison; `about` is what else losses may read of the batch."""
        term, pair = comparison.term, (s[comparison.layer], t[comparison.layer].detach())
        needs = {name: about[name] for name in term.needs}
        if term.adapter != "own" and comparison.adapter in self.adapters:
            pair = self.adapters[comparison.adapter](*pair)
        if term.together:
            pair = tuple(map(together, pair))
            needs = {
                name: together(value) if isinstance(value, Tensor) else value
                for name, value in needs.items()
            }
        return (self.adapters[comparison.adapter] if term.adapter == "own" else term.distance)(
            *pair, **needs
        )

    def observe(self, batch: dict, generator: Generator | None) -> tuple[Tensor, list[Tensor]]:
        """What student and teachers see of the same images: one noise for all that measure alike, one first image for all that see alike."""
        before = generator and generator.get_state()
        views = {id(self.physics): self.physics.observe_batch(batch, generator)}
        for teacher, alike in zip(self.teachers, self.alike, strict=True):
            if id(teacher.physics) not in views:
                again = Generator().set_state(before) if alike and generator else generator
                views[id(teacher.physics)] = teacher.physics.observe_batch(batch, again)
        return views[id(self.physics)], [views[id(teacher.physics)] for teacher in self.teachers]

    def see(self, batch: dict, generator: Generator | None = None) -> dict:
        """The batch with what student and teachers see of it."""
        if "x0" in batch:
            return batch
        x0_s, views = self.observe(batch, generator)
        return batch | {"x0": x0_s} | {f"x0_t/{i}": view for i, view in enumerate(views)}

    @torch.no_grad()
    def teach(self, batch: dict) -> dict:
        """The batch with what frozen teachers make of it, as far as it is compared."""
        if self.online or "t/0/output" in batch:
            return batch
        for i, teacher in enumerate(self.teachers):
            layers = teacher.network.features(batch[f"x0_t/{i}"])
            batch = batch | {
                f"t/{i}/{layer}": layers[layer] for layer in dict.fromkeys((*self.layers, "output"))
            }
        return batch

    def seat(self, batch: dict) -> dict:
        """A whole batch as it is learnt; shuffled teachers speak of the image before, which the order of the batch has drawn."""
        if not self.shuffled:
            return batch
        return {
            name: value.roll(1, 0) if name.startswith(("x0_t/", "t/")) else value
            for name, value in batch.items()
        }

    def forward(self, batch: dict, generator: Generator | None = None) -> dict:
        batch = self.teach(self.see(batch, generator))
        s = self.student.features(batch["x0"])
        taught = [self.taught(batch, i) for i in range(len(self.teachers))]
        target = batch[self.target]
        loss = self.task(s["output"], target if self.supervised else self.consensus(taught))
        terms, alpha = {"task": self.beta * loss}, self.alpha * self.schedule(self.progress)
        # Against the truth and without a weight, as it is computed on validation images.
        plain = loss.detach() if self.supervised else self.task(s["output"].detach(), target)
        metrics = {"task_loss": plain}
        known = {name: batch.get(name) for name in ("label", "index")} | {
            "epoch": self.epoch,
            "generator": generator,
        }
        for comparison in self.comparisons:
            teacher, i = self.teachers[comparison.teacher], comparison.teacher
            if "seen" in comparison.term.needs:
                known["seen"] = teacher.network.normalise(batch[f"x0_t/{i}"])
            value = self.distance(comparison, s, taught[i], known)
            if comparison.term.weight:
                terms[f"distill/{comparison.name}"] = (
                    alpha * teacher.weight * comparison.term.weight * value
                )
            else:
                metrics[comparison.name] = value.detach()
        if self.online:
            terms["teacher"] = self.task(taught[0]["output"], target)
        return {
            "loss": sum(terms.values()),
            "output": s["output"],
            "terms": terms,
            "metrics": metrics,
        }

    def taught(self, batch: dict, i: int) -> dict:
        """The taps of a teacher."""
        if self.online:
            return self.teachers[i].network.features(batch[f"x0_t/{i}"])
        return {layer: batch[f"t/{i}/{layer}"] for layer in (*self.layers, "output")}

    def to_prepare(self) -> list[Comparison]:
        """Comparisons by losses that learn something of the teacher before the student begins."""
        learning = {name for name, module in self.adapters.items() if hasattr(module, "prepare")}
        return [comparison for comparison in self.comparisons if comparison.adapter in learning]

    def prepared(self) -> list[nn.Parameter]:
        """What is learnt before the student."""
        return [
            weight
            for comparison in self.to_prepare()
            for weight in self.adapters[comparison.adapter].prepared()
        ]

    def prepare(self, batch: dict, generator: Generator | None = None) -> dict[str, Tensor]:
        """The losses of what is learnt before the student."""
        batch = self.teach(self.see(batch, generator))
        return {
            c.name: self.adapters[c.adapter].prepare(batch[f"t/{c.teacher}/{c.layer}"])
            for c in self.to_prepare()
        }

    def consensus(self, taught: list[dict]) -> Tensor:
        """The teachers' mean output."""
        total = sum(teacher.weight for teacher in self.teachers)
        return (
            sum(
                teacher.weight * t["output"].detach()
                for teacher, t in zip(self.teachers, taught, strict=True)
            )
            / total
        )
