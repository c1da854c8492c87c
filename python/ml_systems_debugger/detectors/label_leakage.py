"""Features that tell the label, and models that know the answer too soon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    check_count,
    check_fraction,
    detectors,
)
from ..core.arrays import on_host
from ..core.sensitivity import COUNT, SHARE, scales
from ._association import Association, association, shared_rows
from ._latency import SLOW

__all__ = ["LabelLeakageDetector"]

_ACCURACIES = ("accuracy", "val_accuracy")
_HELD_OUT = frozenset({"val", "valid", "validation", "eval", "test", "dev"})

_SOURCE = "Kapoor & Narayanan, Patterns 4(9), 2023"
_RULES = (
    AttributionRule(
        "LEK001", FailureMode.LABEL_LEAKAGE, RootCause.TARGET_LEAK, 0.85,
        "Feature {feature} tells the label by itself ({measure} {explained}).",
        when=(Condition("kind", "==", "feature", "one feature is enough"),),
        remediation=(("Find out when {feature} is written: if after the label is known, leave it "
                      "out."),),
        source=_SOURCE,
    ),
    AttributionRule(
        "LEK002", FailureMode.LABEL_LEAKAGE, RootCause.TARGET_LEAK, 0.85,
        "{rows} rows of the test set were trained on.",
        when=(Condition("kind", "==", "duplicate_rows", "rows are in both sets"),),
        remediation=("Remove duplicates before splitting, and split by entity or by time.",),
        source=_SOURCE,
    ),
    AttributionRule(
        "LEK003", FailureMode.LABEL_LEAKAGE, RootCause.TARGET_LEAK, 0.45,
        "The held-out accuracy is perfect from step {onset_step} on.",
        when=(Condition("kind", "==", "perfect_from_the_start", "it never had to learn"),),
        remediation=(("Test single features against the label, and look for test rows in the "
                      "training set."),),
        source=_SOURCE,
    ),
)  # fmt: skip


@detectors.register("label_leakage")
@dataclass(frozen=True)
class LabelLeakageDetector(BaseDetector):
    """The answer is in the question: a feature that stands for the label, or rows seen before.

    What it detects
    ---------------
    With the context's ``features`` (a mapping of name to values) and ``labels``:
    single features that determine the label. With ``train_rows`` and
    ``test_rows`` (arrays [rows, features]): rows of the test set that are in
    the training set. From the run alone: a held-out accuracy that is perfect
    from the first evaluations on.

    Why it matters
    --------------
    A leak makes every offline figure worthless, and shows only in production
    (Kapoor & Narayanan, Patterns 4(9), 2023, count 294 papers).

    How it decides
    --------------
    Classes: the share of the label's entropy that a feature explains (mutual
    information over the entropy; numbers in 32 to 256 equally full bins; the bias of
    Miller 1955 subtracted), high from `share` on, medium from `suspicious` on,
    where the rarest of two classes has ten rows or more. Numbers: Spearman's
    rank correlation against the same two. Test rows that equal training rows:
    medium from one in a hundred, high from one in ten. Accuracy: at least
    0.9995 in the first three evaluations and in all that follow, which is
    medium at most: some tasks are easy.

    Parameters
    ----------
    share, suspicious : float
        Of the label's entropy, or absolute rank correlation.
    min_rows : int

    Evidence
    --------
    ``kind`` (feature, duplicate_rows, perfect_from_the_start), ``feature``,
    ``explained``, ``measure``, ``rows``, ``share``, ``evaluations``.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> labels = rng.integers(0, 2, 1000)
    >>> features = {"age": rng.normal(size=1000), "paid_at": np.where(labels, 17.0, 0.0)}
    >>> found = LabelLeakageDetector().detect([], {"features": features, "labels": labels})
    >>> found.severity.value, found.evidence["feature"]
    ('high', 'paid_at')
    """

    failure_mode = FailureMode.LABEL_LEAKAGE
    required_signals = _ACCURACIES
    attribution_rules = _RULES
    latency = SLOW
    sensitivity_scales = scales(share=SHARE, suspicious=SHARE, perfect=SHARE, evaluations=COUNT)

    share: float = 0.98
    suspicious: float = 0.9
    min_rows: int = 100
    perfect: float = 0.9995
    evaluations: int = 3

    def __post_init__(self) -> None:
        check_fraction(share=self.share, suspicious=self.suspicious, perfect=self.perfect)
        check_count(10, min_rows=self.min_rows)
        check_count(1, evaluations=self.evaluations)

    def get_required_signals(self) -> Sequence[str]:
        """Return nothing in particular: it may have all it needs in the context."""
        return ()

    def init(self, context: Context | None = None) -> FoldState:
        """Return a fresh state, with the context's features judged."""
        columns = {
            "count": Column(np.int64),
            "perfect": Column(np.int64),
            "first": Column(np.int64),
            "best": Column(np.float64),
        }
        state = FoldState(self.name, 1, columns)
        given = context or {}
        found: list[Finding] = []
        checked = False
        if given.get("features") is not None and given.get("labels") is not None:
            checked = True
            found += self._features(given["features"], given["labels"])
        if given.get("train_rows") is not None and given.get("test_rows") is not None:
            checked = True
            found += self._rows(given["train_rows"], given["test_rows"])
        state.memory["checked"] = checked
        state.memory["found"] = [one.to_dict() for one in found[:50]]
        return state

    def reads(self, key: SeriesKey) -> bool:
        """Return whether it is an accuracy."""
        return key.name in _ACCURACIES

    def update(self, state: Any, chunk: SignalSet) -> Sequence[Event]:
        """Fold a run of closed steps; see `BaseDetector.update`."""
        for one in chunk.named("accuracy", "val_accuracy"):
            if one.kind is not SeriesKind.SCALAR or not _held_out(one.key):
                continue
            row = state.row(one.key)
            if state["count"][row] == 0:
                state["first"][row] = one.steps[0]
            good = (one.values >= self.perfect) & (one.values <= 1.0)
            state["count"][row] += len(one.values)
            state["perfect"][row] += int(good.sum())
        return tuple(state.take_events())

    def conclude(self, state: Any) -> DetectionResult:
        """Return what the state says; see `BaseDetector.conclude`."""
        findings = [Finding.from_dict(terms) for terms in state.memory["found"]]
        enough = 0
        for row, key in enumerate(state.keys):
            count, perfect = int(state["count"][row]), int(state["perfect"][row])
            enough += count >= self.evaluations
            if count >= self.evaluations and perfect == count:
                findings.append(self._too_soon(key, int(state["first"][row]), count))
        more: dict[str, Any] = {"judged": ("feature",) if state.memory["checked"] else ()}
        if not enough and not state.memory["checked"]:
            more["outcome"] = Outcome.INSUFFICIENT if state.keys else Outcome.NOT_APPLICABLE
            more["reason"] = (
                f"fewer than {self.evaluations} evaluations of a held-out accuracy"
                if state.keys
                else "no features and labels are given, and no held-out accuracy is logged"
            )
        return DetectionResult.of_findings(self.failure_mode, self.name, findings, **more)

    def _features(self, features: Any, labels: Any) -> list[Finding]:
        if not isinstance(features, Mapping):
            raise ConfigurationError(
                f"context['features'] maps names to values, got {type(features).__name__}"
            )
        target = _array(labels)
        found = []
        for name, values in features.items():
            column = _array(values)
            if len(column) != len(target):
                raise ConfigurationError(
                    f"feature {name!r} has {len(column)} values, labels have {len(target)}"
                )
            if len(target) < self.min_rows:
                continue
            known = association(column, target)
            if known is not None and known.explained >= self.suspicious:
                found.append(self._tells(str(name), known, len(target)))
        return found

    def _tells(self, feature: str, known: Association, rows: int) -> Finding:
        high = known.explained >= self.share
        return Finding(
            self.failure_mode, Severity.HIGH if high else Severity.MEDIUM, 0.9 if high else 0.6,
            message=f"feature {feature} alone tells the label: {known.measure} "
            f"{known.explained:.3f} over {rows} rows.",
            evidence={
                "kind": "feature", "feature": feature, "explained": known.explained,
                "measure": known.measure, "rows": rows,
            },
            finding_id=f"{self.name}:feature:{feature}",
        )  # fmt: skip

    def _rows(self, train: Any, test: Any) -> list[Finding]:
        sides = [_array(train), _array(test)]
        if any(side.ndim != 2 for side in sides) or sides[0].shape[1] != sides[1].shape[1]:
            raise ConfigurationError(
                f"train_rows and test_rows are [rows, features], got shapes {sides[0].shape} and "
                f"{sides[1].shape}"
            )
        count = shared_rows(*sides)
        share = count / len(sides[1]) if len(sides[1]) else 0.0
        if share < 0.01:
            return []
        high = share >= 0.1
        return [
            Finding(
                self.failure_mode, Severity.HIGH if high else Severity.MEDIUM, 0.9,
                message=f"{count} of {len(sides[1])} test rows are in the training set too "
                f"({share:.1%}).",
                evidence={"kind": "duplicate_rows", "rows": count, "share": share},
                finding_id=f"{self.name}:duplicate_rows",
            )
        ]  # fmt: skip

    def _too_soon(self, key: SeriesKey, first: int, count: int) -> Finding:
        return Finding(
            self.failure_mode, Severity.MEDIUM, 0.5, first,
            message=f"{key} is perfect from its first evaluation (step {first}) in all {count}.",
            evidence={
                "kind": "perfect_from_the_start", "series": str(key), "evaluations": count
            },
            finding_id=f"{self.name}:{key}",
        )  # fmt: skip


def _held_out(key: SeriesKey) -> bool:
    if key.name == "val_accuracy":
        return True
    return key.name == "accuracy" and (key.split or "").lower() in _HELD_OUT


def _array(values: Any) -> npt.NDArray[Any]:
    return np.asarray(on_host(values))
