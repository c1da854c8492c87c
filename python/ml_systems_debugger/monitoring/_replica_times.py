"""How long a rank works by itself in a step, without what it waits for others."""

from __future__ import annotations

import math
import time
from typing import Any

from ._hooks import Hooks
from ._measures import part_of
from ._replica_record import BLOCKS

__all__ = ["OwnWork"]

_SAMPLED = 4  # parameters whose gradients are looked at before their reduction


class OwnWork:
    """Times the parts of a step in which no rank waits for another.

    In a job in lock-step every rank shows the same time per step: all wait for
    the slowest. What is added up here is from the end of a step to the model's
    forward pass (its data), the forward pass, the backward pass up to the last
    gradient before its reduction, and from the optimizer's step on. Left out
    are the end of the backward pass, where reductions are waited for, and what
    lies between it and the optimizer's step. Of a model sharded by FSDP the
    gathering of parameters is left out of the forward pass, and the backward
    pass wholly, since nobody can tell from outside when it waits.

    Parameters
    ----------
    model, optimizer : torch.nn.Module, torch.optim.Optimizer or None
    hooks : Hooks
        What is hung on them.
    """

    def __init__(self, model: Any, optimizer: Any, hooks: Hooks) -> None:
        self._ended = self._began = self._forward_end = self._last = self._stepping = math.nan
        self._busy = 0.0
        self._waited = self._entered = 0.0
        self.phase = "data"
        """Where the rank is in its step: data, forward, backward, optimizer."""
        self.look = False
        """Whether the norms of gradients are to be taken in this step."""
        self._local: dict[int, float] = {}
        self.grad_norm: float | None = None
        """Of the sampled gradients as the optimizer gets them; None where they were not taken."""
        inner = getattr(model, "module", model)
        sharded = [one for one in inner.modules() if hasattr(one, "unshard")]
        first = inner is model  # else the wrapper's own work is left out
        hooks.add(model.register_forward_pre_hook, self._data_came, prepend=first)
        for one in sharded:
            hooks.add(one.register_forward_pre_hook, self._gathers, prepend=True)
            hooks.add(one.register_forward_pre_hook, self._gathered)
        hooks.add(inner.register_forward_pre_hook, self._forward)
        hooks.add(inner.register_forward_hook, self._forward_done, prepend=True)
        trained = [one for one in inner.parameters() if one.requires_grad]
        # The first parameters' gradients are ready last.
        places = {0, 1, len(trained) // 2, len(trained) - 1} & set(range(len(trained)))
        self._sampled = [trained[at] for at in sorted(places)][:_SAMPLED]
        if not sharded:
            for at, one in enumerate(self._sampled):
                hooks.add(one.register_post_accumulate_grad_hook, self._ready(at))
        if optimizer is not None:
            hooks.add(optimizer.register_step_pre_hook, self._steps)
        self._blocks: list[float] = []
        self._size, self._filled, self._least = 1, 0, math.inf

    def _data_came(self, module: Any, *_: Any) -> None:
        if not module.training:
            return
        now = time.perf_counter()
        if self.phase == "data" and self._ended == self._ended:
            self._busy += now - self._ended
            self._ended = math.nan
        self.phase = "forward"
        self._waited = 0.0

    def _gathers(self, *_: Any) -> None:
        self._entered = time.perf_counter()

    def _gathered(self, *_: Any) -> None:
        self._waited += time.perf_counter() - self._entered

    def _forward(self, module: Any, *_: Any) -> None:
        if not module.training:
            return
        self._began, self._waited = time.perf_counter(), 0.0

    def _forward_done(self, module: Any, *_: Any) -> None:
        if not module.training:
            return
        self._forward_end = time.perf_counter()
        self._busy += self._forward_end - self._began - self._waited
        self._last = math.nan
        self.phase = "backward"

    def _ready(self, at: int) -> Any:
        def ready(parameter: Any) -> None:
            now = time.perf_counter()
            if self._last != self._last:
                self._last = self._forward_end
            self._busy += now - self._last
            self._last = now
            if self.look and parameter.grad is not None:
                self._local[at] = _norm(parameter.grad)

        return ready

    def _steps(self, *_: Any) -> None:
        if self.look:
            self.grad_norm = _root(
                [_norm(one.grad) for one in self._sampled if one.grad is not None]
            )
        self.phase, self._stepping = "optimizer", time.perf_counter()

    @property
    def local_norm(self) -> float | None:
        """Norm of the sampled gradients before their reduction; None where it is not known."""
        return _root(list(self._local.values()))

    def interval(self, steps: int) -> None:
        """Begin an interval of so many steps, of which `blocks` are to be taken."""
        self._size = max(1, math.ceil(steps / BLOCKS))
        self._blocks, self._filled, self._least = [], 0, math.inf
        self._local.clear()
        self.grad_norm = None

    def blocks(self) -> list[float]:
        """Return the least seconds of own work in a step of each block; at most 8."""
        last = [self._least] if self._filled else []
        return [one if math.isfinite(one) else math.nan for one in [*self._blocks, *last]]

    def stepped(self) -> None:
        """Take the end of the monitor's step."""
        now = time.perf_counter()
        if self._stepping == self._stepping:
            self._busy += now - self._stepping
        if self._began == self._began:  # a step without a forward pass tells nothing
            self._least = min(self._least, self._busy)
        self._filled += 1
        if self._filled == self._size:
            self._blocks.append(self._least)
            self._filled, self._least = 0, math.inf
        self.resumed()

    def resumed(self) -> None:
        """Begin to time the next step."""
        self._busy, self._began, self._stepping = 0.0, math.nan, math.nan
        self.phase, self._ended = "data", time.perf_counter()


def _norm(gradient: Any) -> float:
    return float(part_of(gradient).detach().float().norm())


def _root(norms: list[float]) -> float | None:
    return math.sqrt(sum(one * one for one in norms)) if norms else None
