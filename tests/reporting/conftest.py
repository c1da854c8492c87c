"""Reports of every kind: real ones, and what hypothesis makes up."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from ml_systems_debugger.core import (
    AttributionHypothesis,
    DebugReport,
    DetectionResult,
    FailureMode,
    Finding,
    Outcome,
    RootCause,
    Severity,
    SkippedDetector,
)
from ml_systems_debugger.core.frozen import FrozenDict

# Any text that a file may hold: control characters, right-to-left marks, lone surrogates.
TEXTS = st.text(max_size=12)
NUMBERS = st.one_of(st.integers(-(10**20), 10**20), st.floats())
VALUES: Any = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=5,
)
EVIDENCE = st.dictionaries(
    st.one_of(TEXTS, st.sampled_from(["rule", "against", "onset_low", "recovered", "traceback"])),
    VALUES,
    max_size=4,
).map(FrozenDict)
STEPS = st.one_of(st.none(), st.integers(-5, 10**12))
REPLICAS = st.one_of(st.none(), st.integers(0, 1000), TEXTS)
LAYERS = st.one_of(st.none(), TEXTS)
CONFIDENCES = st.floats(0, 1)
SEVERITIES = st.sampled_from(list(Severity))
MODES = st.sampled_from(list(FailureMode))


def findings() -> st.SearchStrategy[Finding]:
    return st.builds(
        Finding, MODES, SEVERITIES, CONFIDENCES, STEPS, STEPS, LAYERS, REPLICAS, TEXTS, EVIDENCE,
        TEXTS,
    )  # fmt: skip


def detections() -> st.SearchStrategy[DetectionResult]:
    fired = st.builds(
        lambda mode, name, found, evidence: DetectionResult.of_findings(
            mode, name, found, evidence=evidence, judged=("loss",)
        ),
        MODES, TEXTS, st.lists(findings(), min_size=1, max_size=14), EVIDENCE,
    )  # fmt: skip
    silent = st.builds(
        DetectionResult, MODES, st.just(False), CONFIDENCES, EVIDENCE,
        timestamp=st.one_of(st.none(), st.floats()), detector_name=TEXTS,
        outcome=st.sampled_from(list(Outcome)), reason=TEXTS,
        # A careless author's leftovers.
        severity=st.one_of(st.none(), SEVERITIES), onset_step=STEPS,
    )  # fmt: skip
    return st.one_of(fired, silent)


def hypotheses() -> st.SearchStrategy[AttributionHypothesis]:
    texts = st.lists(TEXTS, max_size=3)
    return st.builds(
        AttributionHypothesis, TEXTS, CONFIDENCES,
        st.lists(st.one_of(findings(), detections().filter(lambda d: d.detected)), max_size=2),
        texts, SEVERITIES, st.sampled_from(list(RootCause)), texts, texts, texts, TEXTS,
    )  # fmt: skip


def reports() -> st.SearchStrategy[DebugReport]:
    return st.builds(
        DebugReport,
        st.floats(allow_nan=False, allow_infinity=False),
        st.lists(detections(), max_size=4),
        st.lists(hypotheses(), max_size=3),
        TEXTS,
        EVIDENCE,
        skipped=st.lists(st.builds(SkippedDetector, TEXTS, TEXTS), max_size=2),
        unread=st.lists(TEXTS, max_size=13),
    )
