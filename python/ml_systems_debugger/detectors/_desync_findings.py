"""Findings of replicas that part: what has parted, and which belong together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from ..core import FailureMode, Finding, SeriesKey

__all__ = ["beside", "earliest_layers", "mode_of", "place_of"]


def mode_of(key: SeriesKey) -> FailureMode:
    """Return what has parted: parameters where the quantity is theirs, else gradients."""
    parameters = key.name.startswith("param_")
    return FailureMode.PARAMETER_DESYNC if parameters else FailureMode.GRADIENT_DESYNC


def place_of(key: SeriesKey) -> str:
    """Return the group in words that no other has; `str` leaves the usual split out."""
    return f"{key} (train)" if key.split == "train" else str(key)


def beside(findings: Iterable[Finding], layers: int) -> Iterator[Finding]:
    """Yield the findings; a parameter that parts alone, of three or more, is told so.

    A missed update parts all parameters at once, a flipped bit one.
    """
    held = list(findings)
    for one in held:
        if one.evidence["quantity"] != "param_digest" or layers < 3:
            yield one
            continue
        with_it = sum(
            other.evidence["quantity"] == "param_digest"
            and (other.onset_step, other.replica_id) == (one.onset_step, one.replica_id)
            for other in held
        )
        more = {"layers": layers, "alone": with_it == 1}
        yield replace(one, evidence={**one.evidence, **more})


def earliest_layers(findings: Any) -> Iterator[Finding]:
    """Yield the findings; what shows in several layers at one step is led by the first of them."""
    yield from sorted(findings, key=lambda f: (f.onset_step or 0, f.layer or "", f.finding_id))
