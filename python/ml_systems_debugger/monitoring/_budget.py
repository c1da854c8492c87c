"""How often a monitor measures and judges, so that it costs no more than it may."""

from __future__ import annotations

import logging
import math
from typing import Any

__all__ = ["Budget"]

_LOG = logging.getLogger("ml_systems_debugger.monitoring")

_WINDOW = 32  # steps at least, over which the cost is weighed
_LEVELS = 11
_MOST_UP = 3  # levels at once
_EASY = 0.4  # of the budget: below this, twice in a row, more is measured again
_LONGEST = 512  # steps between two looks of the detectors, at most


class Budget:
    """Weighs what the monitor took against the time that training took.

    The share over a window is compared with the budget. Above it, what costs most and
    tells least of a single step goes first: each level halves how often the movement
    of the parameters is measured; from the second one on also how often gradients
    are; from where blocks would hold less than one row of them on, also how often the
    detectors look. Two windows far below the budget bring a level back. The first
    window, in which everything is set up, does not count.

    Parameters
    ----------
    limit : float or None
        Part of the time of training; None measures everything always.
    every, update_every : int
        Steps between two looks, and between two measurements of movements, with no
        budget to keep to.
    every_gradient : bool
        Gradients are needed at every step, whatever they cost.
    """

    def __init__(
        self, limit: float | None, every: int, update_every: int, every_gradient: bool
    ) -> None:
        self.limit = limit
        self._base = every, update_every
        self._every_gradient = every_gradient
        self.share: float | None = None
        """Of the last window; None until one has passed."""
        self.since = 0
        """Steps before the present level."""
        self._level = 0
        self._steps = 0
        self._began: tuple[int, float, float] | None = None
        self._first = True
        self._easy = 0
        self._set()

    def _set(self) -> None:
        every, update_every = self._base
        level = self._level
        self.update_every = update_every * 2 ** min(level, 6)
        rare = 2 ** max(level - 1, 0)
        self.gradients_every = 1 if self._every_gradient else rare
        self.every = max(every, min(rare, _LONGEST))

    def due(self, looks: int) -> bool:
        """Return whether gradients are to be measured, at the `looks`-th chance."""
        return looks % self.gradients_every == 0

    def step(self, cost: float, now: float) -> bool:
        """Take the end of a step: seconds the monitor took so far, and the time.

        Returns whether anything is done more or less often from now on.
        """
        self._steps += 1
        if self.limit is None:
            return False
        if self._began is None:
            self._began = self._steps, cost, now
            return False
        start, cost_before, began = self._began
        if self._steps - start < max(_WINDOW, 2 * self.every):
            return False
        self._began = self._steps, cost, now
        own = cost - cost_before
        training = now - began - own
        if self._first or training <= 0:
            self._first = False
            return False
        self.share = own / training
        return self._adapt(self.share / self.limit)

    def _adapt(self, load: float) -> bool:
        before = self._level
        if load > 1.0:
            self._easy = 0
            up = min(math.ceil(math.log2(load)) or 1, _MOST_UP)
            self._level = min(self._level + up, _LEVELS)
        elif load < _EASY:
            self._easy += 1
            if self._easy >= 2 and self._level:
                self._easy = 0
                self._level -= 1
        else:
            self._easy = 0
        if self._level == before:
            return False
        self.since = self._steps
        self._set()
        _LOG.info("%s", self)
        return True

    def to_dict(self) -> dict[str, Any]:
        """Return what is done how often, and what it costs, as JSON terms."""
        return {
            "budget": self.limit, "share": self.share, "gradients_every": self.gradients_every,
            "updates_every": self.update_every, "judged_every": self.every,
            "since_step": self.since, "text": str(self),
        }  # fmt: skip

    def __str__(self) -> str:
        def steps(count: int) -> str:
            return "at every step" if count == 1 else f"every {count} steps"

        text = (
            f"gradients are measured {steps(self.gradients_every)}, movements of parameters "
            f"{steps(self.update_every)}, detectors look {steps(self.every)}"
        )
        if self.limit is None:
            return text
        if self.share is None:
            return f"{text}; no budget of {self.limit:.2%} has been weighed yet"
        told = f"{text}; the last weighing found {self.share:.2%} of the time of training"
        if self.share <= self.limit:
            return f"{told}, {self.limit:.2%} are allowed"
        if self._level == _LEVELS:
            return f"{told}, more than the {self.limit:.2%} allowed: less cannot be done"
        return f"{told}, more than the {self.limit:.2%} allowed"
