"""Findings that belong together, in order of onset: one story each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeGuard

from ..core import DetectionResult, FailureMode, Finding, to_jsonable, word

__all__ = ["Story", "all_findings", "onset_interval", "stories_of", "timeline"]

Edges = Mapping[str, frozenset[str]]

_PER_MODE = 20  # findings of one mode that are judged: a thousand alike say no more than twenty
_EARLIEST = 12  # of those; the rest are the worst
_PATIENCE = 100  # steps after its end in which a finding can still bring another about
_PATIENCE_SHARE = 0.05  # the same as a share of the run so far, since steps may be logged rarely

# A state that lasts rather than an event: what happens early in it explains the rest of it, also
# where it seems to begin a little before, for example with the first of a few evaluations.
_STATES = frozenset({FailureMode.LOSS_PLATEAU.value, FailureMode.OVERFITTING.value})
_EARLY_SHARE = 0.05  # of what is known of the run


@dataclass(frozen=True, slots=True)
class Story:
    """Findings linked by cause and effect.

    Parameters
    ----------
    findings : tuple of Finding
        In order: what can have begun it first.
    depths : tuple of int
        For each finding, how many effects lie between it and a beginning: 0
        where nothing in the story explains it.
    """

    findings: tuple[Finding, ...]
    depths: tuple[int, ...]

    def told(self) -> str:
        """Return what happened, in order: ``loss spike (step 3), then NaN detected (step 9)``."""
        first: dict[str, Finding] = {}
        for finding in self.findings:
            first.setdefault(word(finding.failure_mode), finding)
        return ", then ".join(_spoken(mode, finding) for mode, finding in first.items())


def all_findings(detections: Sequence[DetectionResult], edges: Edges) -> list[Finding]:
    """Return the findings of all that fired, in causal order, whatever the order given."""
    found = [finding for result in detections if result.detected for finding in result.findings]
    early = _early(found)
    keyed = sorted(
        ((_order(finding, edges, early), finding) for finding in found), key=lambda pair: pair[0]
    )
    found = [
        finding
        for _, alike in groupby(keyed, key=lambda pair: pair[0])
        for finding in _settled([finding for _, finding in alike])
    ]
    by_mode: dict[str, list[Finding]] = {}
    for finding in found:
        by_mode.setdefault(word(finding.failure_mode), []).append(finding)
    kept: set[int] = set()
    for alike in by_mode.values():
        # `sorted` is stable: of equally bad ones, the earlier.
        worst = sorted(alike[_EARLIEST:], key=lambda f: (-f.severity.rank, -f.confidence))
        kept.update(map(id, alike[:_EARLIEST] + worst[: _PER_MODE - _EARLIEST]))
    return [finding for finding in found if id(finding) in kept]


def stories_of(findings: Sequence[Finding], edges: Edges) -> tuple[Story, ...]:
    """Return the connected parts of the causal graph, the one that began first in front.

    Parameters
    ----------
    findings : sequence of Finding
        As `all_findings` orders them.
    edges : mapping from mode to modes
    """
    root = list(range(len(findings)))
    early = _early(findings)
    depth = [0] * len(findings)

    def find(at: int) -> int:
        while root[at] != at:
            root[at] = root[root[at]]
            at = root[at]
        return at

    for late, effect in enumerate(findings):
        explained: list[int] = []
        for before, cause in enumerate(findings[:late]):
            # One that comes again is one story, however late: it has one cause more often than not.
            same = word(cause.failure_mode) == word(effect.failure_mode)
            leads = word(effect.failure_mode) in edges.get(word(cause.failure_mode), frozenset())
            if same or (leads and _touch(cause, effect, early)):
                root[max(find(before), find(late))] = min(find(before), find(late))
                explained.append(depth[before] + (not same))
        depth[late] = min(explained, default=0)
    parts: dict[int, list[int]] = {}
    for at in range(len(findings)):
        parts.setdefault(find(at), []).append(at)
    return tuple(
        Story(tuple(findings[at] for at in part), tuple(depth[at] for at in part))
        for _, part in sorted(parts.items())
    )


def timeline(detections: Sequence[DetectionResult], edges: Edges) -> list[dict[str, Any]]:
    """Return the first occurrence of each mode, in order, in terms of strict JSON."""
    first: dict[str, Finding] = {}
    for finding in all_findings(detections, edges):
        first.setdefault(word(finding.failure_mode), finding)
    return [
        {
            "step": to_jsonable(finding.onset_step),
            "failure_mode": mode,
            "severity": finding.severity.value,
            "layer": finding.layer,
            "replica_id": to_jsonable(finding.replica_id),
        }
        for mode, finding in first.items()
    ]


def onset_interval(finding: Finding) -> tuple[int, int] | None:
    """Return the steps between which it began; None where it has no step."""
    onset = finding.onset_step
    if onset is None:
        return None
    low, high = finding.evidence.get("onset_low"), finding.evidence.get("onset_high")
    return (
        min(onset, low) if _is_step(low) else onset,
        max(onset, high) if _is_step(high) else onset,
    )


def _is_step(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _early(findings: Sequence[Finding]) -> int:
    """Return how many steps of what is known of the run count as its beginning."""
    known = (
        step
        for finding in findings
        for step in (
            finding.onset_step, finding.end_step, finding.evidence.get("last_bad_step"),
            finding.evidence.get("persistence_steps"),
        )
        if _is_step(step)
    )  # fmt: skip
    return int(_EARLY_SHARE * max(known, default=0))


def _order(finding: Finding, edges: Edges, early: int) -> tuple[Any, ...]:
    """Earliest step first; at one step what has more effects, then layer, then replica."""
    onset, mode = finding.onset_step, word(finding.failure_mode)
    begun = None if onset is None else onset + (early if mode in _STATES else 0)
    return (
        begun is not None, begun or 0, -len(edges.get(mode, ())), mode, onset or 0,
        finding.layer or "", str(finding.replica_id), finding.finding_id, -finding.severity.rank,
        -finding.confidence, finding.message,
    )  # fmt: skip


def _settled(alike: list[Finding]) -> list[Finding]:
    """Return findings that only their evidence tells apart in an order of their own."""
    return alike if len(alike) < 2 else sorted(alike, key=lambda f: repr(f.to_dict()))


def _touch(cause: Finding, effect: Finding, early: int) -> bool:
    """Return whether `effect` came at a place and time at which `cause` can have made it."""
    replicas = (cause.replica_id, effect.replica_id)
    if None not in replicas and replicas[0] != replicas[1]:
        # What began on one replica reaches the others through the averaging, all at once: such
        # an effect is found on the whole.
        return False
    first, late = onset_interval(cause), onset_interval(effect)
    if first is None or late is None:
        return True
    latest = late[1] + (early if word(effect.failure_mode) in _STATES else 0)
    if first[0] > latest:
        return False
    if cause.end_step is None:
        return True
    length = cause.end_step - first[0]
    wait = max(_PATIENCE, length, int(_PATIENCE_SHARE * late[0]))
    return late[0] - cause.end_step <= wait


def _spoken(mode: str, finding: Finding) -> str:
    name = mode.replace("_", " ").replace("nan ", "NaN ").replace("inf ", "Inf ")
    return name if finding.onset_step is None else f"{name} (step {finding.onset_step})"
