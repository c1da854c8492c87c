"""Inputs or outputs of a model whose distribution moves over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core import (
    AttributionRule,
    BaseDetector,
    Column,
    Condition,
    Context,
    DetectionResult,
    Event,
    FailureMode,
    Finding,
    FoldState,
    Outcome,
    RootCause,
    Series,
    SeriesKey,
    SeriesKind,
    Severity,
    SignalSet,
    TableKeys,
    check_count,
    check_fraction,
    check_positive,
    detectors,
)
from ..core.arrays import on_host
from ..core.sensitivity import DISTANCE, RISK, scales
from ..kernels import NumberComparison, NumberSample, Thresholds, compare_numbers
from ._latency import SLOW

__all__ = ["DistributionDriftDetector"]

_NAMES = ("feature", "prediction", "model_output")
_REFERENCE_SIDES = frozenset({"train", "training", "reference", "ref"})
_LASTING = 4  # windows after which a large drift is high
_SEPARATE = 8

_RULES = (
    AttributionRule(
        "DRF001", FailureMode.DISTRIBUTION_DRIFT, RootCause.DATA_DISTRIBUTION_CHANGE, 0.6,
        "What {feature} measures has changed since step {onset_step}: a {kind} of {effect_size} "
        "robust scales.",
        when=(Condition("kind", "in", ("shift", "scale", "shape", "range"),
                        "the change is a {kind}"),),
        remediation=(("Compare the data from before and after step {onset_step}; retrain with what "
                      "came after it if the change is here to stay."),),
        source="Rabanser et al., Failing Loudly, NeurIPS 2019",
    ),
    AttributionRule(
        "DRF002", FailureMode.DISTRIBUTION_DRIFT, RootCause.PREPROCESSING_MISMATCH, 0.6,
        "The pipeline that prepares {feature} changed at about step {onset_step}: {kind}.",
        when=(Condition("kind", "in", ("constant", "nulls", "nonfinite", "clipped",
                                       "default_value", "rounding", "unit_change",
                                       "no_longer_constant"), "the change is a {kind}"),),
        remediation=(("Look for a release, a schema change or a failed join between steps "
                      "{onset_low} and {onset_step}."),),
        source="Breck et al., Data Validation for Machine Learning, SysML 2019",
    ),
)  # fmt: skip


@detectors.register("distribution_drift")
@dataclass(frozen=True)
class DistributionDriftDetector(BaseDetector):
    """Features or predictions whose distribution moves while the model is in use.

    What it detects
    ---------------
    Series ``feature/<name>``, ``prediction`` and ``model_output``, as one value
    or one array of values per step, of any split but the training one, that
    part from how they began.

    Why it matters
    --------------
    A model degrades silently when what it is fed moves away from what it has
    learnt. The step where that began points to the release, the sensor or the
    season.

    How it decides
    --------------
    The first `reference` values are the reference; windows of `window` values
    after it are compared with it as `kernels.compare_numbers` does: a test and
    an effect (W1 over the robust scale) of at least `effect`, in two windows
    running. Neighbouring values that resemble each other count for fewer: with
    lag-one correlation r of the reference, for (1 - r) / (1 + r) of their number
    (Bartlett 1946). The k-th window is held to ``alpha / (k (k + 1))``, so that
    all windows of an endless series together raise a false alarm with
    probability `alpha` at most. It is medium; high when it has lasted four windows
    of which none is below `high_effect`. Two windows without it end it.

    Parameters
    ----------
    reference, window : int
        Values.
    alpha : float
        Probability of a false alarm per series, over its whole length.
    effect, high_effect : float
        In robust standard deviations of the reference.

    Evidence
    --------
    ``series``, ``kind``, ``effect_size``, ``p_value``, ``statistic``,
    ``reference``, ``serving`` (count, missing, median, iqr, min, max),
    ``onset_low`` (first step of the last window without it), ``windows``,
    ``least_effect`` (of all these windows).

    Examples
    --------
    >>> import numpy as np
    >>> from ml_systems_debugger.core import Series, SeriesKey, SignalSet
    >>> values = np.random.default_rng(0).normal(size=5000)
    >>> values[2500:] += 1.5
    >>> run = SignalSet([Series(SeriesKey("feature", layer="age"), np.arange(5000), values)])
    >>> found = DistributionDriftDetector().detect(run)
    >>> found.severity.value, found.evidence["kind"], found.onset_step
    ('high', 'shift', 2500)
    """

    failure_mode = FailureMode.DISTRIBUTION_DRIFT
    required_signals = _NAMES
    attribution_rules = _RULES
    latency = SLOW
    sensitivity_scales = scales(alpha=RISK, effect=DISTANCE, high_effect=DISTANCE)

    reference: int = 1000
    window: int = 500
    alpha: float = 0.01
    effect: float = 0.2
    high_effect: float = 0.5

    def __post_init__(self) -> None:
        check_count(100, reference=self.reference)
        check_count(50, window=self.window)
        check_fraction(alpha=self.alpha)
        check_positive(effect=self.effect, high_effect=self.high_effect)

    def init(self, context: Context | None = None) -> FoldState:  # noqa: ARG002 - the contract's
        """Return a fresh state."""
        columns = {
            "reference": Column(np.float64, (self.reference,)),
            "window": Column(np.float64, (self.window,)),
            "known": Column(np.int64),
            "held": Column(np.int64),
            "weight": Column(np.float64, (), 1.0),
            "windows": Column(np.int64),
            "streak": Column(np.int64),
            "calm": Column(np.int64),
            "opened": Column(np.int64),
            "began": Column(np.int64),  # first step of the window that is being filled
            "before": Column(np.int64),  # first step of the window before
            "onset": Column(np.int64),
            "onset_low": Column(np.int64),
            "last": Column(np.int64),
        }
        state = FoldState(self.name, 1, columns)
        state.memory["open"] = {}  # row to finding
        return state

    def reads(self, key: SeriesKey) -> bool:
        """Return whether it is a feature or an output that is followed."""
        return _follows(key)

    def update(self, state: Any, chunk: SignalSet) -> Sequence[Event]:
        """Fold a run of closed steps; see `BaseDetector.update`."""
        for table in chunk.tables:
            for at in state.plan(table.keys, "followed", partial(_followed, table.keys)):
                one = table.series(at)
                self._take(state, one, one.values, one.steps)
        for one in chunk.singles:
            if not _follows(one.key):
                continue
            if one.kind is SeriesKind.SCALAR:
                self._take(state, one, one.values, one.steps)
            elif one.kind is SeriesKind.ARRAY:
                for step, array in zip(one.steps.tolist(), one.values, strict=True):
                    values = _floats(array)
                    self._take(state, one, values, np.full(len(values), step))
        return tuple(state.take_events())

    def _take(
        self,
        state: FoldState,
        series: Series,
        values: npt.NDArray[np.float64],
        steps: npt.NDArray[np.int64],
    ) -> None:
        row = state.row(series.key)
        known = int(state["known"][row])
        at = min(self.reference - known, len(values))
        if at > 0:
            state["reference"][row, known : known + at] = values[:at]
            state["known"][row] = known + at
            if known + at == self.reference:
                state["weight"][row] = _independent(state["reference"][row])
        while at < len(values):
            held = int(state["held"][row])
            if held == 0:
                state["began"][row] = steps[at]
            count = min(self.window - held, len(values) - at)
            state["window"][row, held : held + count] = values[at : at + count]
            at += count
            state["held"][row] = held + count
            if held + count == self.window:
                self._judge(state, row, series.key, int(steps[at - 1]))
                state["held"][row] = 0
                state["before"][row] = state["began"][row]

    def _judge(self, state: FoldState, row: int, key: SeriesKey, step: int) -> None:
        state["windows"][row] += 1
        k = int(state["windows"][row])
        weight = float(state["weight"][row])
        found = compare_numbers(
            _sample(state["reference"][row], weight), _sample(state["window"][row], weight),
            Thresholds(effect=self.effect, share=0.05, nonfinite=0.01),
        )  # fmt: skip
        identity = state.memory["open"].get(str(row))
        if found.decisive_p > self.alpha / (k * (k + 1)):
            state["streak"][row] = 0
            state["calm"][row] += 1
            if identity is not None and state["calm"][row] == 2:
                del state.memory["open"][str(row)]
                finding = state.findings.get(identity)
                if finding is not None:
                    state.close(step, replace(finding, end_step=int(state["last"][row])))
            return
        if state["streak"][row] == 0 and identity is None:
            state["onset"][row] = state["began"][row]
            state["onset_low"][row] = state["before"][row] if k > 1 else state["began"][row]
        state["streak"][row] += 1
        state["calm"][row] = 0
        state["last"][row] = step
        if identity is None:
            if state["streak"][row] == 2:
                self._open(state, row, key, found, step)
            return
        finding = state.findings.get(identity)
        if finding is None:
            return
        windows = int(finding.evidence["windows"]) + 1
        least = min(float(finding.evidence["least_effect"]), found.effect)
        evidence = {
            **finding.evidence, **_evidence(found), "windows": windows, "least_effect": least
        }  # fmt: skip
        grown = windows >= _LASTING and least >= self.high_effect
        worse = grown and finding.severity < Severity.HIGH
        severity = Severity.HIGH if worse else finding.severity
        newer = replace(
            finding, severity=severity, confidence=0.95 if worse else finding.confidence,
            evidence=evidence, message=_message(key, found, int(state["onset"][row])),
        )  # fmt: skip
        state.replace(newer, step if worse else None)

    def _open(
        self, state: FoldState, row: int, key: SeriesKey, found: NumberComparison, step: int
    ) -> None:
        if state["opened"][row] >= _SEPARATE:
            return
        state["opened"][row] += 1
        onset = int(state["onset"][row])
        identity = f"{self.name}:{key}:{onset}"
        evidence = {
            "series": str(key), "feature": key.layer or key.name, **_evidence(found),
            "onset_low": int(state["onset_low"][row]), "windows": 2,
            "least_effect": found.effect,
        }  # fmt: skip
        finding = Finding(
            self.failure_mode, Severity.MEDIUM, 0.85, onset, None, None, key.replica_id,
            _message(key, found, onset), evidence, identity,
        )  # fmt: skip
        if state.open(step, finding):
            state.memory["open"][str(row)] = identity

    def conclude(self, state: Any) -> DetectionResult:
        """Return what the state says; see `BaseDetector.conclude`."""
        rows = range(len(state.keys))
        judged = [state.keys[row].name for row in rows if state["windows"][row] >= 2]
        more: dict[str, Any] = {"judged": tuple(sorted(set(judged)))}
        if not judged:
            more["outcome"] = Outcome.INSUFFICIENT if state.keys else Outcome.NOT_APPLICABLE
            more["reason"] = (
                f"no series has {self.reference + 2 * self.window} values: a reference and two "
                f"windows"
                if state.keys
                else "no feature or prediction is logged over time"
            )
        return DetectionResult.of_findings(
            self.failure_mode, self.name, list(state.findings.values()), **more
        )


def _followed(keys: TableKeys) -> list[int]:
    """Return the columns of a table that are followed."""
    return [at for at, key in enumerate(keys.keys) if _follows(key)]


def _follows(key: SeriesKey) -> bool:
    name = key.name.partition("/")[0]
    return name in _NAMES and (key.split or "").lower() not in _REFERENCE_SIDES


def _floats(array: Any) -> npt.NDArray[np.float64]:
    return np.asarray(on_host(array), np.float64).ravel()


def _independent(values: npt.NDArray[np.float64]) -> float:
    """Return for what share of their number the values count, from their lag-one correlation."""
    finite = values[np.isfinite(values)]
    if len(finite) < 10:
        return 1.0
    ranks = np.argsort(np.argsort(finite)).astype(np.float64)  # heavy tails do not matter
    ranks -= ranks.mean()
    power = float(ranks @ ranks)
    r = float(ranks[1:] @ ranks[:-1]) / power if power else 0.0
    r = min(max(r, 0.0), 0.99)
    return (1 - r) / (1 + r) if r > 3 / len(finite) ** 0.5 else 1.0


def _sample(values: npt.NDArray[np.float64], weight: float) -> NumberSample:
    found = NumberSample.of(values)
    count = max(int(weight * found.count), 8)
    share = count / found.count
    return NumberSample(
        found.values, count, round(found.missing * share), round(found.infinite * share), None,
        max(int(weight * len(found.values)), 8),
    )  # fmt: skip


def _evidence(found: NumberComparison) -> dict[str, Any]:
    return {
        "kind": found.kind, "effect_size": found.effect, "p_value": found.p_value,
        "statistic": found.statistic, "reference": found.reference, "serving": found.serving,
    }  # fmt: skip


def _message(key: SeriesKey, found: NumberComparison, onset: int) -> str:
    name = key.layer or key.name.partition("/")[2] or key.name
    text = (
        f"{name} has drifted since step {onset}: {found.kind.replace('_', ' ')} of "
        f"{found.effect:.3g} robust scales (p = {found.p_value:.1e})"
    )
    if "median" in found.reference and "median" in found.serving:
        text += f"; median {found.reference['median']:.4g}, now {found.serving['median']:.4g}"
    return text + "."
