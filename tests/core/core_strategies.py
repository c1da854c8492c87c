"""Made-up findings, results and signals for the tests of core."""

from __future__ import annotations

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
    Signal,
    SkippedDetector,
    Status,
)

# "NaN" and its like as text come back as numbers: the written form cannot tell them.
words = st.text(max_size=8).filter(lambda t: t not in ("NaN", "Infinity", "-Infinity"))
steps = st.none() | st.integers(0, 2**62)
replicas = st.none() | st.integers(0, 4096) | words
terms = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)
evidence = st.dictionaries(words, terms, max_size=4)
share = st.floats(0.0, 1.0)

findings = st.builds(
    Finding,
    st.sampled_from(FailureMode), st.sampled_from(Severity), share, steps, steps,
    st.none() | words, replicas, words, evidence, words,
)  # fmt: skip
results = st.builds(
    DetectionResult,
    st.sampled_from(FailureMode), st.booleans(), share, evidence,
    st.none() | st.floats(0, 2e9), words,
    severity=st.none() | st.sampled_from(Severity),
    onset_step=steps, end_step=steps, layer=st.none() | words, replica_id=replicas,
    message=words, findings=st.lists(findings, max_size=3), outcome=st.sampled_from(Outcome),
    judged=st.lists(words, max_size=2), reason=words, contributing_count=st.integers(0, 99),
)  # fmt: skip
hypotheses = st.builds(
    AttributionHypothesis,
    words, share, st.lists(findings, max_size=2), st.lists(words, max_size=2),
    st.sampled_from(Severity), st.sampled_from(RootCause), st.lists(words, max_size=2),
    st.lists(words, max_size=2),
)  # fmt: skip
reports = st.builds(
    DebugReport,
    st.floats(0, 2e9), st.lists(results, max_size=3), st.lists(hypotheses, max_size=2), words,
    evidence, st.none() | st.sampled_from(Status),
    st.lists(st.builds(SkippedDetector, words, words), max_size=2), st.lists(words, max_size=2),
)  # fmt: skip
signals = st.builds(
    Signal,
    st.sampled_from(["loss", "val_loss", "lr", "learning_rate", "grad_norm", "made up"]),
    st.floats() | st.integers(-(2**60), 2**60) | st.booleans() | words,
    st.none() | st.floats(0, 2e9),
    st.just({}) | st.just({"split": "eval"}) | st.just({"run": "b"}),
    st.none() | st.integers(0, 2),
    st.none() | st.integers(0, 20),
    st.none() | st.sampled_from(["a", "b"]),
)
