"""Serving data that is not what the model was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core import (
    AttributionRule,
    BaseDetector,
    Column,
    Condition,
    ConfigurationError,
    Context,
    DetectionResult,
    Event,
    FailureMode,
    Finding,
    FoldState,
    Outcome,
    RootCause,
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
from ..kernels import (
    NumberComparison,
    NumberSample,
    Thresholds,
    benjamini_hochberg,
    compare_numbers,
)
from ._latency import SLOW

__all__ = ["TrainingServingSkewDetector"]

_KEPT = 16384  # values kept per feature and side, evenly over all that came
_REFERENCE = frozenset({"train", "training", "reference", "ref"})
_SERVING = frozenset({"serving", "serve", "production", "inference", "live"})
_FEATURE = "feature"
_SIDES = {"training_distribution": "train", "serving_distribution": "serving"}
_DIVERGENCE = "kl_divergence"


def _rule(
    code: str, cause: RootCause, strength: float, text: str, hint: str, kind: str, source: str
) -> AttributionRule:
    return AttributionRule(
        code, FailureMode.TRAINING_SERVING_SKEW, cause, strength, text,
        when=(Condition("kind", "in", tuple(kind.split()), f"the change is a {'{kind}'}"),),
        remediation=(hint,), source=source,
    )  # fmt: skip


_MISMATCH = (
    "unit_change constant nulls nonfinite clipped default_value rounding no_longer_constant scale "
    "range"
)
_SKEW = (
    _rule("SKW001", RootCause.PREPROCESSING_MISMATCH, 0.6,
          "Feature {feature} is prepared differently in serving: a {kind} of {effect_size} robust "
          "scales.",
          "Run one raw record through the training and the serving pipeline and compare {feature}.",
          _MISMATCH, "Breck et al., Data Validation for Machine Learning, SysML 2019"),
    _rule("SKW002", RootCause.UNSCALED_INPUT, 0.35,
          "Feature {feature} reaches the model in another unit.",
          "Check that the scaler of the training set is applied to {feature} in serving.",
          "unit_change scale", "Breck et al., Data Validation for Machine Learning, SysML 2019"),
    _rule("SKW003", RootCause.DATA_DISTRIBUTION_CHANGE, 0.5,
          "What feature {feature} measures has changed since training: a {kind} of {effect_size} "
          "robust scales.",
          "Look when {feature} began to move; retrain with data from after that.",
          "shift shape scale range", "Rabanser et al., Failing Loudly, NeurIPS 2019"),
    _rule("SKW004", RootCause.PREPROCESSING_MISMATCH, 0.25,
          "Feature {feature} is prepared differently in serving.",
          "Run one raw record through the training and the serving pipeline and compare {feature}.",
          "shift shape divergence", "Breck et al., SysML 2019"),
    _rule("SKW005", RootCause.DATA_DISTRIBUTION_CHANGE, 0.3,
          "The serving data has parted from the training data.",
          "Compare the raw values of {feature} on both sides.",
          "divergence", "Rabanser et al., Failing Loudly, NeurIPS 2019"),
)  # fmt: skip


@detectors.register("training_serving_skew")
@dataclass(frozen=True)
class TrainingServingSkewDetector(BaseDetector):
    """Features whose distribution in serving differs from that in training.

    What it detects
    ---------------
    Features with values on both sides, given as signals ``feature/<name>`` (or
    ``feature`` with the name as layer) whose split is ``train`` or ``reference``
    and ``serving`` or ``production``; as arrays ``training_distribution`` and
    ``serving_distribution`` (the feature as layer); or as the context's
    ``reference`` and ``serving``, mappings of feature to values. Where only
    ``kl_divergence`` is logged, that.

    Why it matters
    --------------
    A model is right about the data that it was trained on. A unit changed, a
    default filled in or a scaler left out in serving costs accuracy without
    any error.

    How it decides
    --------------
    Two conditions, both: a test (Kolmogorov-Smirnov for the values, z for the
    shares of missing, infinite or newly repeated values), corrected over looks
    by Bonferroni and over features by Benjamini and Hochberg at `q`; and an
    effect: W1 over the reference's robust scale of at least `effect`, or two in
    a hundred rows missing or turned into one value. A million rows make
    everything significant and nothing large; three hundred the reverse. From
    `high_effect` on it is high. A logged divergence without its samples is
    held to `kl_threshold` and is medium at most.

    Parameters
    ----------
    q : float
        False-discovery rate over features.
    effect, high_effect : float
        In robust standard deviations of the reference.
    kl_threshold : float
        Nats.
    min_points : int
        Values on each side below which a feature is not judged.

    Evidence
    --------
    ``feature``, ``kind`` (shift, scale, unit_change, constant,
    no_longer_constant, nulls, nonfinite, clipped, default_value, rounding, range,
    shape, divergence), ``effect_size``,
    ``p_value``, ``statistic``, ``reference`` and ``serving`` (count, missing,
    median, iqr, min, max).

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> sides = {"reference": {"age": rng.normal(40, 9, 2000)},
    ...          "serving": {"age": rng.normal(480, 108, 2000)}}
    >>> found = TrainingServingSkewDetector().detect([], sides)
    >>> found.severity.value, found.evidence["kind"]
    ('high', 'unit_change')
    """

    failure_mode = FailureMode.TRAINING_SERVING_SKEW
    required_signals = (_FEATURE, *_SIDES, _DIVERGENCE)
    attribution_rules = _SKEW
    latency = SLOW
    sensitivity_scales = scales(
        q=RISK, effect=DISTANCE, high_effect=DISTANCE, kl_threshold=DISTANCE
    )

    q: float = 0.01
    effect: float = 0.1
    high_effect: float = 0.5
    kl_threshold: float = 0.2
    min_points: int = 50

    def __post_init__(self) -> None:
        check_fraction(q=self.q)
        check_positive(
            effect=self.effect, high_effect=self.high_effect, kl_threshold=self.kl_threshold
        )
        check_count(10, min_points=self.min_points)

    def init(self, context: Context | None = None) -> FoldState:
        """Return a fresh state, with the context's samples folded in."""
        columns = {
            "sample": Column(np.float64, (_KEPT,)),
            "seen": Column(np.int64),
            "stride": Column(np.int64, (), 1),
            "kept": Column(np.int64),
        }
        state = FoldState(self.name, 1, columns)
        for name, split in (("reference", "train"), ("serving", "serving")):
            given = (context or {}).get(name)
            if given is None:
                continue
            if not isinstance(given, Mapping):
                raise ConfigurationError(
                    f"context[{name!r}] maps features to values, got {type(given).__name__}"
                )
            for feature, values in given.items():
                _take(state, SeriesKey(_FEATURE, split, str(feature)), _floats(values, feature))
        return state

    def reads(self, key: SeriesKey) -> bool:
        """Return whether it is of a feature."""
        return _side_of(key) is not None

    def update(self, state: Any, chunk: SignalSet) -> Sequence[Event]:
        """Fold a run of closed steps; see `BaseDetector.update`."""
        for table in chunk.tables:
            for at, side in state.plan(table.keys, "sides", partial(_sides, table.keys)):
                _take(state, side, table.values[:, at])
        for one in chunk.singles:
            key = _side_of(one.key)
            if key is None:
                continue
            if one.kind is SeriesKind.SCALAR:
                _take(state, key, one.values)
            elif one.kind is SeriesKind.ARRAY:
                for array in one.values:
                    _take(state, key, _floats(array, key.layer))
        return ()

    def conclude(self, state: Any) -> DetectionResult:
        """Return what the state says; see `BaseDetector.conclude`."""
        names, found = [], []
        short = 0
        for feature, reference, serving in _pairs(state):
            if min(len(reference), len(serving)) < self.min_points:
                short += 1
                continue
            names.append(feature)
            sides = (NumberSample.of(reference), NumberSample.of(serving))
            found.append(compare_numbers(*sides, Thresholds(effect=self.effect)))
        rejected = benjamini_hochberg([c.decisive_p for c in found], self.q) if found else []
        findings = [
            self._finding(name, comparison)
            for name, comparison, sure in zip(names, found, rejected, strict=True)
            if sure
        ]
        diverged, logged = self._diverged(state)
        findings += diverged
        more: dict[str, Any] = {
            "judged": (_FEATURE,) if names else (_DIVERGENCE,) if logged else ()
        }
        more["contributing_count"] = int(sum(int(state["seen"][r]) for r in range(len(state.keys))))
        if not names and not logged:
            more["outcome"] = Outcome.INSUFFICIENT if short else Outcome.NOT_APPLICABLE
            more["reason"] = (
                f"{short} features have fewer than {self.min_points} values on a side"
                if short
                else "no feature has values of training and of serving"
            )
        return DetectionResult.of_findings(self.failure_mode, self.name, findings, **more)

    def _finding(self, feature: str, c: NumberComparison) -> Finding:
        high = c.effect >= self.high_effect
        evidence = {
            "feature": feature, "kind": c.kind, "effect_size": c.effect, "p_value": c.p_value,
            "statistic": c.statistic, "reference": c.reference, "serving": c.serving,
        }  # fmt: skip
        text = (
            f"feature {feature}: {c.kind.replace('_', ' ')} of {c.effect:.3g} robust scales "
            f"(p = {c.p_value:.1e})"
        )
        if "median" in c.reference and "median" in c.serving:
            text += (
                f"; median {c.reference['median']:.4g} in training, {c.serving['median']:.4g} in "
                f"serving"
            )
        return Finding(
            self.failure_mode, Severity.HIGH if high else Severity.MEDIUM, 0.95 if high else 0.8,
            message=text + ".", evidence=evidence, finding_id=f"{self.name}:{feature}",
        )  # fmt: skip

    def _diverged(self, state: FoldState) -> tuple[list[Finding], bool]:
        findings, logged = [], False
        for row, key in enumerate(state.keys):
            if key.name != _DIVERGENCE:
                continue
            logged = True
            values = state["sample"][row, : int(state["kept"][row])]
            values = np.sort(values[~np.isnan(values)])
            middle = float(values[len(values) // 2]) if len(values) else 0.0  # inf stays inf
            if middle < self.kl_threshold:
                continue
            feature = key.layer or "(all)"
            findings.append(
                Finding(
                    self.failure_mode,
                    Severity.MEDIUM,
                    0.6,
                    message=f"the KL divergence of {feature} is {middle:.3g} nats (threshold "
                    f"{self.kl_threshold:g}); without the samples no test can confirm it.",
                    evidence={"feature": feature, "kind": "divergence", "effect_size": middle},
                    finding_id=f"{self.name}:{_DIVERGENCE}:{feature}",
                )
            )
        return findings, logged


def _sides(keys: TableKeys) -> list[tuple[int, SeriesKey]]:
    """Return the columns of a table that are of features, and the keys that keep them."""
    found = ((at, _side_of(key)) for at, key in enumerate(keys.keys))
    return [(at, side) for at, side in found if side is not None]


def _side_of(key: SeriesKey) -> SeriesKey | None:
    """Return the key under which a series is kept; None where it is no feature's."""
    name, layer = key.name, key.layer
    if name in _SIDES:
        return SeriesKey(_FEATURE, _SIDES[name], layer or "value")
    if name == _DIVERGENCE:
        return SeriesKey(_DIVERGENCE, None, layer)
    if name.startswith(f"{_FEATURE}/"):
        name, layer = _FEATURE, name.partition("/")[2]
    if name != _FEATURE or key.split is None:
        return None
    side = key.split.lower()
    if side in _REFERENCE:
        return SeriesKey(_FEATURE, "train", layer or "value")
    if side in _SERVING:
        return SeriesKey(_FEATURE, "serving", layer or "value")
    return None


def _floats(values: Any, feature: object) -> npt.NDArray[np.float64]:
    try:
        return np.asarray(on_host(values), dtype=np.float64).ravel()
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"feature {feature!r} holds no numbers: {error}") from error


def _take(state: FoldState, key: SeriesKey, values: npt.NDArray[np.float64]) -> None:
    """Keep every stride-th value by its place alone; when full, every other one goes."""
    row = state.row(key)
    start = 0
    while start < len(values):
        seen, stride, kept = (int(state[name][row]) for name in ("seen", "stride", "kept"))
        first = (-seen) % stride
        room = _KEPT - kept
        stop = min(len(values), start + first + (room - 1) * stride + 1)
        part = values[start + first : stop : stride]
        state["sample"][row, kept : kept + len(part)] = part
        state["kept"][row] = kept + len(part)
        state["seen"][row] = seen + stop - start
        start = stop
        if state["kept"][row] == _KEPT:
            state["sample"][row, : _KEPT // 2] = state["sample"][row, ::2]
            state["kept"][row] = _KEPT // 2
            state["stride"][row] = 2 * stride


def _pairs(
    state: FoldState,
) -> Iterator[tuple[str, npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    rows = {key: row for row, key in enumerate(state.keys)}
    for key in sorted(rows, key=lambda key: key.sort_key()):
        other = rows.get(key._replace(split="serving"))
        if key.name != _FEATURE or key.split != "train" or other is None:
            continue
        sides = (state["sample"][row, : int(state["kept"][row])] for row in (rows[key], other))
        reference, serving = sides
        yield key.layer or "value", reference, serving
