"""Two runs of one seed that do not give the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy.typing as npt

from ..core import (
    BaseDetector,
    Context,
    DetectionResult,
    Event,
    FailureMode,
    Finding,
    FoldState,
    Outcome,
    Series,
    SeriesKey,
    SeriesKind,
    Severity,
    SignalSet,
    check_count,
    check_positive,
    detectors,
    to_jsonable,
)
from ..core.parting import common_places
from ..core.sensitivity import COUNT, DISTANCE, scales
from ._determinism_rules import DETERMINISM
from ._latency import SLOW
from ._straggler_findings import ident
from ._trail import evidence

__all__ = ["NonDeterminismDetector"]

# In the order in which a step makes them: of several that part at one step, the first leads.
_QUANTITIES = (
    "lr", "activation_std", "activation_zero_fraction", "loss", "perplexity", "accuracy",
    "loss_scale", "grad_digest", "grad_norm", "update_ratio", "param_digest", "param_norm",
)  # fmt: skip
_TELLING = frozenset({"loss", "grad_norm", "param_norm", "grad_digest", "param_digest"})
_KINDS = (SeriesKind.SCALAR, SeriesKind.DIGEST)
_MOST = 16  # quantities that a finding lists


@detectors.register("non_determinism")
@dataclass(frozen=True)
class NonDeterminismDetector(BaseDetector):
    """Two runs of one seed that part: at which step, and in which quantity first.

    What it detects
    ---------------
    Of several runs in the input, pairs of one seed whose recorded values are
    not the same bit for bit: the first step and the first quantity (and layer,
    and replica) that differ, and how far the runs part from there.

    Why it matters
    --------------
    A failure that cannot be replayed cannot be bisected, and a comparison of two
    settings measures chance as well. The first difference tells where to look:
    in the data order, a kernel, or the state that a restart brought back.

    How it decides
    --------------
    By comparing values at equal steps, NaN equal to NaN; there is no statistic.
    Times and memory are not compared. Two runs are of one seed where both log the
    same ``seed`` (as a series or in the context), where the context says
    ``same_seed``, or where nothing is said and they agree in `agreeing` changing
    values of a loss, a norm or a digest before they part: by chance they do not.
    Within one step, what a step makes first leads: learning rate, activations,
    loss, gradients, parameters. High where the context says ``deterministic``,
    else medium; low where no loss, norm or accuracy ever differs by more than
    `negligible`.

    Parameters
    ----------
    agreeing : int
        Values that make two runs of unknown seeds runs of one seed.
    negligible : float
        Relative difference.

    Evidence
    --------
    ``rule`` (from_the_start, later), ``series``, ``quantity``, ``runs``,
    ``values`` (of the two, at the onset), ``last_equal_step``, ``equal_values``,
    ``parted`` (quantity and step, in order), ``largest_difference`` (relative),
    ``seed``, ``onset_step``, ``onset_low``, ``onset_high``.

    Examples
    --------
    >>> from ml_systems_debugger.core import Signal
    >>> signals = [Signal("loss", 2.0 / (i + 1) + (r == "b" and i >= 30) * 1e-3, step=i,
    ...                   metadata={"run": r}) for i in range(60) for r in "ab"]
    >>> found = NonDeterminismDetector().detect(signals)
    >>> found.severity.value, found.onset_step, found.evidence["quantity"]
    ('medium', 30, 'loss')
    """

    failure_mode = FailureMode.NON_DETERMINISM
    required_signals = _QUANTITIES
    attribution_rules = DETERMINISM
    latency = SLOW
    sensitivity_scales = scales(agreeing=COUNT, negligible=DISTANCE)

    agreeing: int = 3
    negligible: float = 1e-6

    def __post_init__(self) -> None:
        check_count(1, agreeing=self.agreeing)
        check_positive(negligible=self.negligible)

    def init(self, context: Context | None = None) -> FoldState:
        """Return a fresh state: a few numbers for every quantity of every pair of runs."""
        state = FoldState(self.name, 1, {})
        known = to_jsonable(dict(context or {}))
        told = {k: known[k] for k in ("seed", "same_seed", "deterministic") if k in known}
        state.memory.update(context=told, seeds={}, pairs={}, runs=[])
        return state

    def reads(self, key: SeriesKey) -> bool:
        """Return whether it is what runs are compared by."""
        return key.name in _QUANTITIES or key.name == "seed"

    def update(self, state: FoldState, chunk: SignalSet) -> Sequence[Event]:
        """Fold a run of closed steps into `state`, in place; return what changed."""
        self._seeds(state, chunk)
        logged = {run for table in chunk.tables for run in table.keys.runs_of(_QUANTITIES)}
        logged.update(
            one.key.run
            for one in chunk.singles
            if one.kind in _KINDS and one.key.name in _QUANTITIES and len(one)
        )
        if len(logged) < 2:  # nothing to compare with
            for run in logged:
                self._meet(state, run)
            return ()
        found: dict[SeriesKey, dict[str | None, Series]] = {}
        for name in _QUANTITIES:
            for one in chunk.select(name, kind=None):
                if one.kind in _KINDS and one.key.name == name and len(one):
                    found.setdefault(one.key._replace(run=None), {})[one.key.run] = one
                    self._meet(state, one.key.run)
        parted: dict[tuple[str, str], int] = {}
        for place, runs in found.items():
            if len(runs) < 2:
                continue
            for a, b in combinations(sorted(runs, key=_run_order), 2):
                if self._apart(state, a, b):
                    continue
                step = _compare(self._pair(state, a, b), place, runs[a], runs[b])
                if step is not None:
                    pair = (_shown(a), _shown(b))
                    parted[pair] = min(step, parted.get(pair, step))
        for (a, b), step in parted.items():
            pair = state.memory["pairs"][f"{a}|{b}"]
            if pair["first"] is None:
                pair["first"] = step
                if self._one_seed(state, pair, step):
                    state.open(step, self._finding(state, pair, step))
        return state.take_events()

    def _meet(self, state: FoldState, run: str | None) -> None:
        if _shown(run) not in state.memory["runs"]:
            state.memory["runs"] = sorted([*state.memory["runs"], _shown(run)])

    def _seeds(self, state: FoldState, chunk: SignalSet) -> None:
        seeds = state.memory["seeds"]
        for one in chunk.select("seed"):
            if len(one) and _shown(one.key.run) not in seeds:
                seeds[_shown(one.key.run)] = [int(one.steps[0]), float(one.values[0])]

    def _apart(self, state: FoldState, a: str | None, b: str | None) -> bool:
        """Return whether two runs are known to have different seeds."""
        seeds = state.memory["seeds"]
        known = [seeds.get(_shown(run)) for run in (a, b)]
        return None not in known and known[0][1] != known[1][1]

    def _pair(self, state: FoldState, a: str | None, b: str | None) -> dict[str, Any]:
        fresh: dict[str, Any] = {"runs": [_shown(a), _shown(b)], "places": {}, "first": None}
        pair: dict[str, Any] = state.memory["pairs"].setdefault(f"{_shown(a)}|{_shown(b)}", fresh)
        return pair

    def _one_seed(self, state: FoldState, pair: dict[str, Any], step: int | None) -> bool:
        """Return whether two runs are of one seed, as far as was known by `step`."""
        context, seeds = state.memory["context"], state.memory["seeds"]
        known = [seeds.get(run) for run in pair["runs"]]
        if all(one is not None and (step is None or one[0] <= step) for one in known):
            return bool(known[0][1] == known[1][1])
        if context.get("same_seed") or context.get("seed") is not None:
            return True
        places = pair["places"].values()
        told = [one["telling"] for one in places if step is None or one["step"] == step]
        return bool(sum(told) >= self.agreeing)

    def _finding(self, state: FoldState, pair: dict[str, Any], at: int | None = None) -> Finding:
        """Return the finding as it stands; with `at` as it stood at that step."""
        parted = [one for one in pair["places"].values() if one["step"] is not None]
        parted = [one for one in parted if at is None or one["step"] == at]
        parted.sort(key=lambda one: (one["step"], one["order"], one["text"]))
        first = parted[0]
        key = SeriesKey.from_list(first["key"])
        step, last = first["step"], first["last_equal"]
        equal = None if at is not None else sum(one["equal"] for one in pair["places"].values())
        numbers = [one["largest"] for one in parted if one["largest"] is not None and at is None]
        largest = max(numbers, default=None)
        context = state.memory["context"]
        severity = Severity.MEDIUM
        if largest is not None and len(numbers) == len(parted) and largest <= self.negligible:
            severity = Severity.LOW
        elif context.get("deterministic"):
            severity = Severity.HIGH
        seeds = [state.memory["seeds"].get(run) for run in pair["runs"]]
        seed = context.get("seed") if seeds[0] is None else seeds[0][1]
        a, b = first["values"]
        names = " and ".join(pair["runs"])
        told = f"the runs {names} are equal up to step {last}" if last is not None else (
            f"the runs {names} differ from their first common step"
        )  # fmt: skip
        facts = evidence(
            rule="from_the_start" if last is None else "later", series=str(key),
            quantity=key.name, runs=tuple(pair["runs"]), values=(a, b), last_equal_step=last,
            equal_values=equal,
            parted=tuple(f"{one['text']} at step {one['step']}" for one in parted[:_MOST]),
            quantities_parted=len(parted), largest_difference=largest, seed=seed,
            onset_step=step, onset_low=step if last is None else last, onset_high=step,
        )  # fmt: skip
        return Finding(
            self.failure_mode,
            severity,
            0.99 if seeds[0] is not None or context.get("same_seed") else 0.85,
            step,
            None,
            key.layer,
            key.replica_id,
            f"{told}; {key} parts first, at step {step}: {_number(a)} and {_number(b)}",
            facts,
            f"{self.name}:{'|'.join(pair['runs'])}",
        )

    def conclude(self, state: FoldState) -> DetectionResult:
        """Return what `state` says of the run so far; changes nothing."""
        if len(state.memory["runs"]) < 2:
            return self._silent(Outcome.NOT_APPLICABLE, "there are no two runs to compare")
        judged: set[str] = set()
        found: list[Finding] = []
        pairs = [pair for _, pair in sorted(state.memory["pairs"].items())]
        for pair in pairs:
            places = pair["places"].values()
            if not self._one_seed(state, pair, None):
                continue
            judged |= {SeriesKey.from_list(one["key"]).name for one in places}
            if any(one["step"] is not None for one in places):
                found.append(self._finding(state, pair))
        if not judged:
            why = "no two runs are known to be of one seed (log `seed`, or say same_seed)"
            return self._silent(Outcome.NOT_APPLICABLE, why)
        return DetectionResult.of_findings(
            self.failure_mode, self.name, found, judged=tuple(sorted(judged))
        )


def _compare(pair: dict[str, Any], place: SeriesKey, one: Series, other: Series) -> int | None:
    """Follow one quantity of two runs; return the step where it parts, if it does now."""
    both = common_places(one, other)
    steps, a, b = both.steps, both.a, both.b
    if not len(both):
        return None
    text = ident(place)
    fresh = {
        "key": place.to_list(), "text": str(place), "order": _QUANTITIES.index(place.name),
        "step": None, "values": None, "last_equal": None, "equal": 0, "telling": 0,
        "previous": None, "largest": None,
    }  # fmt: skip
    held = pair["places"].setdefault(text, fresh)
    scalar = a.dtype.kind == "f"
    first = None
    if held["step"] is None:
        parting = both.first_parting()
        stop = len(both) if parting is None else parting
        if stop:
            _agree(held, place.name, a[:stop], int(steps[stop - 1]))
        if parting is not None:
            first = held["step"] = int(steps[stop])
            values = (a[stop], b[stop])
            held["values"] = [float(v) if scalar else f"{int(v):016x}" for v in values]
    if scalar and held["step"] is not None:
        held["largest"] = max(both.largest_difference(), held["largest"] or 0.0)
    return first


def _agree(held: dict[str, Any], name: str, values: npt.NDArray[Any], step: int) -> None:
    held["equal"] += len(values)
    held["last_equal"] = step
    if name not in _TELLING:
        return
    before = held["previous"]
    # As text: a digest of 64 bits is no number that JSON keeps.
    changes = int((values[1:] != values[:-1]).sum()) + (before != str(values[0]))
    held["telling"], held["previous"] = held["telling"] + changes, str(values[-1])


def _run_order(run: str | None) -> tuple[bool, str]:
    return run is not None, run or ""


def _shown(run: str | None) -> str:
    return "(unnamed)" if run is None else run


def _number(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)
