"""Stages: a batch in, named loss terms out. The loop knows no network, no physics and no loss."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from algo_functions import Physics
from distill.adapters import Adapter
from distill.selection import selected_taps


class Supervised(nn.Module):
    """loss = L(student(x0), image)"""

    def __init__(self, student: nn.Module, physics: Physics, loss: Callable[[Tensor, Tensor], Tensor]):
        super().__init__()
        self.student, self.physics, self.loss = student, physics, loss

    def forward(self, batch: dict, generator: Generator | None = None) -> dict:
        output = self.student(self.physics.observe(batch["image"], generator))
        terms = {"task": self.loss(output, batch["image"])}
        return {"loss": terms["task"], "output": output, "terms": terms}


class Distillation(nn.Module):
    """loss = beta L(student(x0_s), target) + alpha sum_k D(adapt_k(s_k), t_k), the taps k named by a selection.

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
        distance: Callable[[Tensor, Tensor], Tensor],
        adapted: bool = True,
        task: Callable[[Tensor, Tensor], Tensor],
        alpha: float = 1.0,
        beta: float = 1.0,
        supervised: bool = True,
        online: bool = False,
    ):
        super().__init__()
        self.student, self.physics = student, physics_s
        self.distance, self.task = distance, task
        self.alpha, self.beta, self.supervised, self.online = alpha, beta, supervised, online
        # A frozen teacher is no part of the stage's state: it is neither trained nor saved with the run.
        if online:
            self.teacher, self.physics_t = teacher, physics_t
        else:
            object.__setattr__(self, "teacher", teacher.requires_grad_(False).eval())
            object.__setattr__(self, "physics_t", physics_t)
        self.taps, self.adapters = self._dry_run(selection, adapted)

    @torch.no_grad()
    def _dry_run(self, selection: str, adapted: bool) -> tuple[list[str], nn.ModuleDict]:
        """The selected taps, and an adapter for each whose shapes differ, made once and before the optimiser."""
        c, n = self.physics.recipe["c"], self.physics.recipe["n"]
        device = next(self.student.parameters()).device
        mode = self.student.training
        s, t = (net.eval().features(torch.zeros(1, c, n, n, device=device)) for net in (self.student, self.teacher))
        self.student.train(mode)
        taps = selected_taps(selection, list(s), list(t))
        differ = [tap for tap in taps if adapted and s[tap].shape != t[tap].shape]
        return taps, nn.ModuleDict({tap: Adapter(s[tap].shape[1], t[tap].shape[1]) for tap in differ}).to(device)

    def observe(self, image: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor]:
        """What student and teacher see of the same image; one observation for both where they share the physics."""
        x0_s = self.physics.observe(image, generator)
        return x0_s, x0_s if self.physics_t is self.physics else self.physics_t.observe(image, generator)

    def forward(self, batch: dict, generator: Generator | None = None) -> dict:
        image = batch["image"]
        x0_s, x0_t = self.observe(image, generator)
        s = self.student.features(x0_s)
        with torch.set_grad_enabled(self.online):
            t = self.teacher.features(x0_t)
        terms = {"task": self.beta * self.task(s["output"], image if self.supervised else t["output"].detach())}
        for tap in self.taps:
            pair = s[tap], t[tap].detach()
            pair = self.adapters[tap](*pair) if tap in self.adapters else pair
            terms[f"distill/{tap}"] = self.alpha * self.distance(*pair)
        if self.online:
            terms["teacher"] = self.task(t["output"], image)
        return {"loss": sum(terms.values()), "output": s["output"], "terms": terms}
