"""A loss that has risen: the verdict with its evidence."""

from __future__ import annotations

from ..core import Severity
from ..kernels.trail import Field
from ._trail import Onset, Trail, Verdict, evidence, sureness

__all__ = ["rise_verdict"]


def rise_verdict(
    trail: Trail,
    best: float,
    now: float,
    asked: float,
    length: int,
    onset: Onset,
    rule: str,
) -> Verdict:
    """Return that the loss stands at `now`, over `best`, where a rise of `asked` is much."""
    first = trail[Field.FIRST]
    gain = first - best
    words = "keeps bursting to" if rule == "bursts" else "stands at"
    return Verdict(
        Severity.HIGH,
        sureness((now - best) / max(asked, 1e-300)),
        onset,
        f"the loss {words} {now:.4g}, over a best level of {best:.4g} and a start of "
        f"{first:.4g}, for {length} values",
        evidence(
            rule=rule,
            start=first,
            best=best,
            last=now,
            rise=now - best,
            asked=asked,
            ratio=now / best if best > 0 else None,
            lost_gain=(now - best) / gain if gain > 0 else None,
            above_start=now - first,
            peak=trail[Field.MAX],
            peak_step=trail.step(Field.MAX_STEP),
            persistence_steps=length,
            noise=trail.groups.noise,
        ),
    )
