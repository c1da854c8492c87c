"""States that last: from values over a limit to occurrences, however a history is cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["TAIL", "Lasting", "Tail", "Turn", "keep_all", "summed"]

_LOOK = 32  # values before its first one in which an occurrence may have crept up
TAIL = 128  # values remembered between chunks: the longest window of a rule, 64, and those

_Floats = npt.NDArray[np.float64]
_Steps = npt.NDArray[np.int64]


class Turn(NamedTuple):
    """What becomes of an occurrence, in indices of the arrays given.

    ``open``: decided at `stop` - 1, it began at `start`; ``open`` and ``more``: those of the
    values [start, stop) that lie above the leaving limit belong to it;
    ``close``: decided at `stop` - 1, its last value was `start`.
    """

    kind: Literal["open", "more", "close"]
    start: int
    stop: int


class Tail(NamedTuple):
    """The last values of a series with those of a chunk behind them.

    `facts` [k, n] are whatever an occurrence is described by; `past` is the
    number of values in front that earlier calls have judged.
    """

    excess: _Floats
    facts: _Floats
    steps: _Steps
    past: int

    @classmethod
    def of(
        cls, kept: _Floats, kept_steps: _Steps, excess: _Floats, facts: _Floats, steps: _Steps
    ) -> Tail:
        """Put a chunk behind what `keep` saved."""
        held = int(np.isfinite(kept[0]).sum())
        return cls(
            np.concatenate([kept[0, TAIL - held :], excess]),
            np.concatenate([kept[1:, TAIL - held :], facts], axis=1),
            np.concatenate([kept_steps[TAIL - held :], steps]),
            held,
        )

    def keep(self, kept: _Floats, kept_steps: _Steps) -> None:
        """Save the last values into `kept` [1 + k, TAIL] (NaN where fresh) and `kept_steps`."""
        n = min(TAIL, len(self.excess))
        if n:
            kept[0, TAIL - n :], kept[1:, TAIL - n :] = self.excess[-n:], self.facts[:, -n:]
            kept_steps[TAIL - n :] = self.steps[-n:]


@dataclass(frozen=True, slots=True)
class Lasting:
    """When values over a limit are an occurrence: enough of them in a window.

    An occurrence opens where `needed` of the last `window` values have an
    excess above 1 (it began with the first of these), and closes once `calm`
    values in a row have at most `leave`: a limit to leave by that is lower than
    the one to enter by keeps a faltering occurrence in one piece.
    """

    window: int
    needed: int
    calm: int
    leave: float = 0.5

    def turns(self, tail: Tail, opened: bool) -> Iterator[Turn]:
        """Yield what happens in the values behind ``tail.past``, in order."""
        excess, at = tail.excess, tail.past
        strong = excess > 1.0
        if not opened and not strong[at:].any():
            return
        size = len(excess)
        sums = np.concatenate([[0], np.cumsum(strong)])
        begin = np.maximum(np.arange(1, size + 1) - self.window, 0)
        enough = strong & (sums[1:] - sums[begin] >= self.needed)
        last = np.maximum.accumulate(np.where(excess > self.leave, np.arange(size), -1))
        quiet = np.arange(size) - last >= self.calm
        while at < size:
            if not opened:
                found = np.flatnonzero(enough[at:])
                if not len(found):
                    return
                stop = at + int(found[0]) + 1
                first = max(0, stop - self.window)
                first += int(np.argmax(strong[first:stop]))
                yield Turn("open", first, stop)
            else:
                found = np.flatnonzero(quiet[at:])
                stop = at + int(found[0]) + 1 if len(found) else size
                yield Turn("more", at, stop)
                if not len(found):
                    return
                yield Turn("close", int(last[stop - 1]), stop)
            at, opened = stop, not opened

    def before(self, tail: Tail, start: int) -> int:
        """Return the index from which on values up to `start` lie above the leaving limit.

        At most 32 values back, so that it does not depend on how a history is cut.
        """
        begin = max(0, start - _LOOK)
        calm = np.flatnonzero(tail.excess[begin:start] <= self.leave)
        return begin + int(calm[-1]) + 1 if len(calm) else begin


def keep_quiet(
    kept: _Floats, kept_steps: _Steps, excess: _Floats, facts: _Floats, steps: _Steps
) -> bool:
    """Save what `Tail.keep` would where no value is over the limit and nothing is open.

    Returns whether that is so; otherwise nothing is saved. `kept` [1 + k, TAIL] is of one series.
    """
    # NaN is not below either.
    if not bool((excess <= 1.0).all()):
        return False
    n = min(TAIL, len(steps))
    if n < TAIL:
        kept[:, :-n], kept_steps[:-n] = kept[:, n:], kept_steps[n:]
    if n:
        kept[0, TAIL - n :], kept[1:, TAIL - n :] = excess[-n:], facts[:, -n:]
        kept_steps[TAIL - n :] = steps[-n:]
    return True


def keep_all(
    kept: _Floats, kept_steps: _Steps, rows: Sequence[int], facts: _Floats, steps: _Steps
) -> None:
    """Save the last values of several series at once; `facts` is [series, 1 + k, n]."""
    n = min(TAIL, len(steps))
    if n < TAIL:
        kept[rows, :, :-n], kept_steps[rows, :-n] = kept[rows, :, n:], kept_steps[rows, n:]
    kept[rows, :, TAIL - n :] = facts[:, :, -n:]
    kept_steps[rows, TAIL - n :] = steps[-n:]


def summed(before: float, values: npt.NDArray[Any]) -> float:
    """Return ``before + values[0] + ...`` from left to right: the same however it is cut."""
    return float(np.add.accumulate(np.concatenate([[before], values]))[-1])
