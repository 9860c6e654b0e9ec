"""Stages: a batch in, named loss terms out. The loop knows no network, no physics and no loss."""

from collections.abc import Callable, Sequence
from itertools import product

import torch
from torch import Generator, Tensor, nn

from distill import Term
from distill.adapters import Adapter
from distill.schedule import constant
from distill.selection import selected_taps
from physics.base import Physics


class Supervised(nn.Module):
    """loss = L(student(x0), image)"""

    def __init__(self, student: nn.Module, physics: Physics, loss: Callable[[Tensor, Tensor], Tensor]):
        super().__init__()
        self.student, self.physics, self.loss = student, physics, loss

    def forward(self, batch: dict, generator: Generator | None = None) -> dict:
        output = self.student(self.physics.look(batch, generator))
        terms = {"task": self.loss(output, batch["image"])}
        return {"loss": terms["task"], "output": output, "terms": terms}


class Distillation(nn.Module):
    """loss = beta L(student(x0_s), target) + alpha(progress) sum_j w_j sum_k D_j(adapt_jk(s_k), t_k), the taps k named by a selection.

    A term of weight 0 is a metric: it is computed and named, and teaches nothing.

    The target is the image or, without `supervised`, the teacher's output. An `online` teacher learns beside the student,
    from its own task loss alone; any other is frozen and cannot leave eval mode.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        physics_s: Physics,
        physics_t: Physics,
        *,
        selection: str,
        losses: Sequence[Term],
        task: Callable[[Tensor, Tensor], Tensor],
        alpha: float = 1.0,
        schedule: Callable[[float], float] = constant,
        beta: float = 1.0,
        supervised: bool = True,
        online: bool = False,
    ):
        super().__init__()
        self.student, self.physics = student, physics_s
        self.losses, self.task = losses, task
        self.progress, self.schedule = 0.0, schedule  # the loop tells how far the training is
        self.alpha, self.beta, self.supervised, self.online = alpha, beta, supervised, online
        # A frozen teacher is no part of the stage's state: it is neither trained nor saved with the run.
        if online:
            self.teacher, self.physics_t = teacher, physics_t
        else:
            object.__setattr__(self, "teacher", teacher.requires_grad_(False).eval())
            object.__setattr__(self, "physics_t", physics_t)
        self.taps, self.adapters = self._dry_run(selection)

    @torch.no_grad()
    def _dry_run(self, selection: str) -> tuple[list[str], nn.ModuleDict]:
        """The selected taps, and the adapters that the losses need between them, made once and before the optimiser."""
        mode, device = self.student.training, next(self.student.parameters()).device
        pairs = (self.student, self.physics), (self.teacher, self.physics_t)
        s, t = (network.eval().features(camera.to(device).parts[0].example(device)) for network, camera in pairs)
        self.student.train(mode)
        taps = selected_taps(selection, list(s), list(t))
        adapters = nn.ModuleDict()
        for tap in taps:
            for loss in self.losses:
                if loss.bridge == "always" or (loss.bridge == "differ" and s[tap].shape != t[tap].shape):
                    adapters[self._bridge(loss, tap)] = Adapter(s[tap].shape[1], t[tap].shape[1], loss.bridge == "always").to(device)
                pair = adapters[self._bridge(loss, tap)](s[tap], t[tap]) if self._bridge(loss, tap) in adapters else (s[tap], t[tap])
                loss.distance(*pair)  # says at once what it cannot compare
        return taps, adapters

    @staticmethod
    def _bridge(loss: Term, tap: str) -> str:
        """The adapter's name; losses that need one only where shapes differ share it."""
        return f"{loss.name}/{tap}" if loss.bridge == "always" else "" if loss.bridge == "never" else tap

    def observe(self, batch: dict, generator: Generator | None) -> tuple[Tensor, Tensor]:
        """What student and teacher see of the same images; one observation for both where they share the physics."""
        x0_s = self.physics.look(batch, generator)
        return x0_s, x0_s if self.physics_t is self.physics else self.physics_t.look(batch, generator)

    def forward(self, batch: dict, generator: Generator | None = None) -> dict:
        image = batch["image"]
        x0_s, x0_t = self.observe(batch, generator)
        s = self.student.features(x0_s)
        with torch.set_grad_enabled(self.online):
            t = self.teacher.features(x0_t)
        terms = {"task": self.beta * self.task(s["output"], image if self.supervised else t["output"].detach())}
        metrics, alpha = {}, self.alpha * self.schedule(self.progress)
        for loss, tap in product(self.losses, self.taps):
            pair = s[tap], t[tap].detach()
            bridge = self._bridge(loss, tap)
            value = loss.distance(*(self.adapters[bridge](*pair) if bridge in self.adapters else pair))
            if loss.weight:
                terms[f"distill/{loss.name}/{tap}"] = alpha * loss.weight * value
            else:
                metrics[f"{loss.name}/{tap}"] = value.detach()
        if self.online:
            terms["teacher"] = self.task(t["output"], image)
        return {"loss": sum(terms.values()), "output": s["output"], "terms": terms, "metrics": metrics}
