"""Occurrences of slowness: what they are made of, and what they say."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..core import FailureMode, Finding, FoldState, SeriesKey, Severity
from ._lasting import Lasting, Tail, Turn, summed
from ._pace import BUSY, TIMES
from ._trail import evidence, sureness

__all__ = ["begun", "extend", "finding_of", "ident", "is_pace", "pace_of", "told_once"]

_PACE = "pace of "


def pace_of(place: SeriesKey) -> SeriesKey:
    """Return the key under which the pace of a whole place is kept."""
    return place._replace(name=f"{_PACE}{place.name}", replica_id=None)


def is_pace(key: SeriesKey) -> bool:
    """Return whether `key` is that of a whole."""
    return key.name.startswith(_PACE)


def begun(
    state: FoldState,
    key: SeriesKey,
    row: int,
    rule: Lasting,
    tail: Tail,
    turn: Turn,
    number: int,
) -> dict[str, Any]:
    """Return an occurrence that has just opened."""
    low = rule.before(tail, turn.start)
    base, noise = float(state["base"][row]), float(state["noise"][row])
    onset = int(tail.steps[turn.start])
    return {
        "number": number, "onset": onset, "low": int(tail.steps[max(0, low - 1)]), "end": None,
        "sum": 0.0, "values": 0, "excess": 0.0, "peak": 0.0, "peak_step": onset,
        "start": low == 0 and bool(state["slow"][row]), "base": base, "key": key.to_list(),
        "noise": noise if math.isfinite(noise) else None,
    }  # fmt: skip


def extend(run: dict[str, Any], rule: Lasting, tail: Tail, turn: Turn) -> None:
    """Add the values of a turn to an occurrence."""
    span = slice(turn.start, turn.stop)
    inside = tail.excess[span] > rule.leave
    if not inside.any():
        return
    over, times = tail.facts[:, span][:, inside]
    run["sum"] = summed(run["sum"], over)
    run["values"] += len(over)
    run["excess"] = summed(run["excess"], times * -np.expm1(-over))
    at = int(np.argmax(over))
    if over[at] > run["peak"]:
        run["peak"] = float(over[at])
        run["peak_step"] = int(tail.steps[span][inside][at])


def finding_of(
    key: SeriesKey, run: dict[str, Any], replicas: int, limit: float, detector: str
) -> Finding:
    """Return a finding of an occurrence as it stands; `limit` in logarithms."""
    job = is_pace(key)
    place = key._replace(name=key.name.removeprefix(_PACE), replica_id=None)
    typical, over = math.exp(min(run["sum"] / run["values"], 700.0)), run["end"] is not None
    rule = "job" if job else "from_the_start" if run["start"] else "replica"
    severity = Severity.MEDIUM
    if job and (replicas > 1 or over):
        severity = Severity.LOW
    elif rule == "replica" and not over and typical >= 1.5:
        severity = Severity.HIGH
    span = f"from step {run['onset']} to {run['end']}" if over else f"since step {run['onset']}"
    if job:
        who = "every replica" if replicas > 1 else "the job"
        told = f"{who} takes {typical:.3g} times the {place.name} it took before, {span}"
    else:
        than = "the median of the others" if run["start"] else "it usually does"
        told = (
            f"replica {key.replica_id} takes {typical:.3g} times the {place.name} that "
            f"{than}, {span} (at most {math.exp(min(run['peak'], 700.0)):.3g} times at step "
            f"{run['peak_step']})"
        )
    facts = evidence(
        rule=rule, series=str(key._replace(name=place.name)), quantity=place.name,
        replicas=replicas, slowdown=typical,
        peak_slowdown=math.exp(min(run["peak"], 700.0)), peak_step=run["peak_step"],
        score=1.0 / typical, usual_ratio=None if job else math.exp(min(run["base"], 700.0)),
        noise=run["noise"], limit=math.exp(min(limit, 700.0)),
        persistence_steps=run["values"],
        excess_time=run["excess"], onset_step=run["onset"],
        onset_low=min(run["low"], run["onset"]), onset_high=run["onset"], goes_on=not over,
        recovered=True if over else None,
    )  # fmt: skip
    return Finding(
        FailureMode.STRAGGLER_EFFECT, severity,
        sureness(run["sum"] / run["values"] / limit) if severity > Severity.LOW else 0.5,
        run["onset"], run["end"], key.layer, None if job else key.replica_id, told, facts,
        f"{detector}:{ident(key)}:{run['number']}",
    )  # fmt: skip


def ident(key: SeriesKey) -> str:
    """Return a key in words that no other has; `str` leaves the usual split out."""
    return f"{key} (train)" if key.split == "train" else str(key)


def told_once(findings: Iterable[Finding]) -> list[Finding]:
    """Leave out what another quantity says of the same replica at the same time.

    A rate says the same as a time, and the job slows with its straggler where
    only the step time of the whole is logged.
    """
    order = [*TIMES, BUSY]
    kept: list[Finding] = []
    for finding in sorted(findings, key=lambda f: order.index(f.evidence["quantity"])):
        same = (
            one
            for one in kept
            if one.replica_id == finding.replica_id
            and one.evidence["quantity"] != finding.evidence["quantity"]
            and _overlap(one, finding)
        )
        if next(same, None) is None:
            kept.append(finding)
    return kept


def _overlap(one: Finding, other: Finding) -> bool:
    ends = [math.inf if f.end_step is None else f.end_step for f in (one, other)]
    begun = max(one.onset_step or 0, other.onset_step or 0)
    return begun <= min(ends)
