"""Batches whose values leave the range of all batches before."""

# ruff: noqa: ARG002 - the hooks of `LayerDetector` have the same arguments everywhere
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ..core import (
    AttributionRule,
    Column,
    Condition,
    FailureMode,
    Finding,
    FoldState,
    RootCause,
    SeriesKey,
    Severity,
    check_range,
    detectors,
)
from ..core.sensitivity import RATIO, scales
from ._layers import SEPARATE, LayerDetector, Rows, early_columns, learn_early
from ._streaks import Turn
from ._trail import Floats, evidence, sureness

__all__ = ["InputOutOfRangeDetector"]

_SOURCE = "Breck et al., Data Validation for Machine Learning, SysML 2019"
_FEW = 8  # batches: more than that are no single bad ones
_RULES = (
    AttributionRule(
        "INR001", FailureMode.INPUT_OUT_OF_RANGE, RootCause.CORRUPTED_BATCH, 0.85,
        "The batch of step {onset_step} holds values out of range: {series} was {ratio} times "
        "what it usually is.",
        when=(Condition("batches", "<=", _FEW, "{batches} batches show it"),),
        lowers=((Condition("goes_on", "==", True, "the run ends with it"), 0.5),),
        remediation=(("Look at the examples of step {onset_step}; check the range of each batch "
                      "before it is trained on, and leave out those beyond it."),),
        source=_SOURCE,
    ),
    AttributionRule(
        "INR002", FailureMode.INPUT_OUT_OF_RANGE, RootCause.UNSCALED_INPUT, 0.6,
        "What goes into the model has not been scaled since step {onset_step}: {series} is {ratio} "
        "times what it was.",
        when=(Condition("batches", ">", _FEW, "{batches} batches show it"),
              Condition("ratio", ">", 1.0, "values are larger than before")),
        remediation=(("Look at the preprocessing and at the source of the data at step "
                      "{onset_step}."),),
        source=_SOURCE,
    ),
    AttributionRule(
        "INR003", FailureMode.INPUT_OUT_OF_RANGE, RootCause.DATA_DISTRIBUTION_CHANGE, 0.4,
        "The data is another since step {onset_step}: {series} is {ratio} times what it was.",
        when=(Condition("batches", ">", _FEW, "{batches} batches show it"),),
        remediation=("Compare the data from before and after step {onset_step}.",),
        source=_SOURCE,
    ),
)  # fmt: skip

_SAMPLE = 64
_MARGIN = 1.5  # of the distance from what is usual to the farthest so far, beyond that
_LASTING = 16  # batches in a row after which a large change is high
_FAR = 2.5  # times `factor`: a large change


@detectors.register("input_out_of_range")
@dataclass(frozen=True)
class InputOutOfRangeDetector(LayerDetector):
    """Batches whose values are far larger or smaller than those of all batches before.

    What it detects
    ---------------
    ``input_std`` and ``input_absmax`` (the deviation and the largest magnitude of
    what goes into the model, per batch; ``input_std/<name>`` for models with more
    than one input) that leave their own range by `factor`.

    Why it matters
    --------------
    Where a normalisation follows the input, a batch in wrong units leaves no
    mark in the loss or the gradients, and still teaches the wrong thing: it
    moves the running statistics that are used when the model serves.

    How it decides
    --------------
    What is usual is the median of the first 64 batches. A batch is out of range
    where it lies beyond all before by `factor`, above or below, and at least two
    and a half times as far from what is usual as any before, on the logarithm: where
    batches of very different sizes are daily fare, their records say so. (Of data with a
    tail like a power law, the n-th batch does that by chance about once in n^2.5, which
    makes one false alarm in some 750 runs, however long.) Batches out
    of range never widen the range. Medium; high where 16 batches in a row or more are 2.5
    times `factor` away and the run goes on so.

    Parameters
    ----------
    factor : float
        Beyond the largest or smallest batch so far.

    Evidence
    --------
    ``series``, ``usual``, ``ratio`` (of the farthest batch to what is usual),
    ``batches`` (out of range), ``last_bad_step``, ``goes_on``, ``onset_step``, ``onset_low``,
    ``onset_high``, ``recovered``.

    Examples
    --------
    >>> from ml_systems_debugger.core import Signal
    >>> found = InputOutOfRangeDetector().detect(
    ...     [Signal("input_std", 300.0 if i == 80 else 1.0, step=i) for i in range(99)])
    >>> found.severity.value, found.onset_step, found.evidence["ratio"]
    ('medium', 80, 300.0)
    """

    failure_mode = FailureMode.INPUT_OUT_OF_RANGE
    required_signals = ("input_std", "input_absmax")
    attribution_rules = _RULES
    sensitivity_scales = scales(factor=RATIO.within(1.5, 1e6))
    followed = ("input_std", "input_absmax")
    whole = True
    columns: ClassVar[dict[str, Column]] = {
        **early_columns(_SAMPLE),
        "most": Column(np.float64, (), np.nan),
        "least": Column(np.float64, (), np.nan),
        "quiet": Column(np.int64, (), LayerDetector.calm),  # values in range, running
        "number": Column(np.int64),  # occurrences so far
        "ratios": Column(np.float64, (SEPARATE,), 1.0),
        "batches": Column(np.int64, (SEPARATE,)),
    }

    factor: float = 4.0

    def __post_init__(self) -> None:
        check_range("factor", self.factor, 1.0, 1e6, open_low=True)

    @property
    def lasting(self) -> int:
        """One batch is enough."""
        return 1

    def bad(
        self, state: FoldState, row: int, key: SeriesKey, values: Floats
    ) -> npt.NDArray[np.bool_]:
        """Return which batches are out of range; keep the range of all others."""
        held = np.zeros(len(values), np.bool_)
        taken, usual = learn_early(state, row, values)
        rest = values[taken:]
        if not len(rest) or not 0 < usual < np.inf:
            return held
        if np.isnan(state["most"][row]):
            sample = state["early"][row]
            sample = sample[np.isfinite(sample)]
            state["most"][row], state["least"][row] = sample.max(), sample.min()
        most, least = float(state["most"][row]), float(state["least"][row])
        low, high = self._limits(least, most, usual)
        if least <= rest.min() and rest.max() <= most:
            state["quiet"][row] += len(rest)  # nothing new, as almost always
            return held
        for at, value in enumerate(rest.tolist(), taken):
            if low <= value <= high:
                if not least <= value <= most:
                    most, least = max(most, value), min(least, value)
                    low, high = self._limits(least, most, usual)
            elif value == value:  # NaN is another detector's
                held[at] = True
        if held.any():
            for at, value in enumerate(rest.tolist(), taken):
                self._count(state, row, bool(held[at]), value / usual)
        else:
            state["quiet"][row] += len(rest)
        state["most"][row], state["least"][row] = most, least
        return held

    def bad_many(
        self, state: FoldState, rows: Rows, keys: Sequence[SeriesKey], values: Floats
    ) -> npt.NDArray[np.bool_]:
        """As `LayerDetector.bad_many`; at once where nothing is new, as almost always."""
        known = state["count"][rows] >= _SAMPLE  # of the others the range is not known: NaN
        known &= (values.min(axis=0) >= state["least"][rows]) & (
            values.max(axis=0) <= state["most"][rows]
        )
        if known.all():
            state["quiet"][rows] += len(values)
            return np.zeros(values.shape, np.bool_)
        return super().bad_many(state, rows, keys, values)

    def _limits(self, least: float, most: float, usual: float) -> tuple[float, float]:
        return (
            least / max(self.factor, (usual / least) ** _MARGIN) if least > 0 else 0.0,
            most * max(self.factor, (most / usual) ** _MARGIN),
        )

    def _count(self, state: FoldState, row: int, out: bool, ratio: float) -> None:
        """Remember of each occurrence how many batches it holds and how far they went."""
        if not out:
            state["quiet"][row] += 1
            return
        if state["quiet"][row] >= self.calm:
            state["number"][row] += 1
        state["quiet"][row] = 0
        at = int(state["number"][row]) - 1
        if at < SEPARATE:
            state["batches"][row, at] += 1
            far = float(state["ratios"][row, at])
            ratio = min(max(ratio, 1e-300), 1e300)
            if abs(np.log(ratio)) > abs(np.log(far)):
                state["ratios"][row, at] = ratio

    def opened(self, state: FoldState, row: int, key: SeriesKey, turn: Turn) -> Finding:
        """Return the finding; how far and how long it went is known at the end."""
        return self.occurrence(
            key,
            turn,
            0.75,
            f"{key.name} of step {turn.first} is out of the range of all batches before",
            {"usual": float(state["usual"][row])},
        )

    def weigh(self, state: FoldState, findings: list[Finding]) -> list[Finding]:
        """Tell how far and how long each occurrence went; the farther of two statistics speaks."""
        names = {str(key): row for row, key in enumerate(state.keys)}
        number: dict[int, int] = {}
        by_place: dict[tuple[object, ...], Finding] = {}
        for finding in findings:
            row = names[str(finding.evidence["series"])]
            at = number[row] = number.get(row, -1) + 1
            goes_on = finding.end_step is None
            told = self._told(
                finding, float(state["ratios"][row, at]), int(state["batches"][row, at]),
                int(state["last"][row]) if goes_on else finding.end_step,
            )  # fmt: skip
            key = state.keys[row]
            place = (key.run, key.segment, key.split, key.layer, key.replica_id, told.onset_step)
            other = by_place.get(place)
            if other is None or _distance(told) > _distance(other):
                by_place[place] = told
        return list(by_place.values())

    def _told(self, finding: Finding, ratio: float, batches: int, last: int | None) -> Finding:
        goes_on = finding.end_step is None
        far = max(ratio, 1 / ratio) >= _FAR * self.factor
        high = goes_on and far and batches >= _LASTING
        which = f"{batches} batches from step" if batches > 1 else "the batch of step"
        facts = {
            **finding.evidence, "ratio": ratio, "batches": batches, "goes_on": goes_on,
            "last_bad_step": last,
        }  # fmt: skip
        return replace(
            finding,
            severity=Severity.HIGH if high else Severity.MEDIUM,
            confidence=sureness(max(ratio, 1 / ratio) / self.factor),
            evidence=evidence(**facts),
            message=(
                f"{which} {finding.onset_step}{' on' if batches > 1 else ''} out of range: "
                f"{finding.evidence['series']} is {ratio:.3g} times what it usually is"
            ),
        )


def _distance(finding: Finding) -> float:
    return abs(float(np.log(finding.evidence["ratio"])))
