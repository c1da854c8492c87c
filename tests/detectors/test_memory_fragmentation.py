"""Memory that is held and not used."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from ml_systems_debugger import (
    ConfigurationError,
    Outcome,
    Series,
    SeriesKey,
    Severity,
    SignalSet,
    diagnose,
)
from ml_systems_debugger.detectors import MemoryFragmentationDetector

DETECTOR = MemoryFragmentationDetector()
STEPS = 600


def memory(seed: int = 0, **named: Any) -> SignalSet:
    rng = np.random.default_rng(seed)
    return SignalSet(
        Series(SeriesKey(name), np.arange(STEPS), values + 0.1 * rng.gamma(2, 1, STEPS))
        for name, values in named.items()
    )


def rising(start: float, end: float, begins: int = 0) -> Any:
    return start + (end - start) * np.maximum(np.arange(STEPS) - begins, 0) / (STEPS - begins)


FLAT = np.full(STEPS, 20.0)


def test_a_growing_gap_is_found_with_its_onset_and_share() -> None:
    result = DETECTOR.detect(memory(memory_allocated=FLAT, memory_reserved=rising(24, 40, 200)))
    assert result.severity is Severity.MEDIUM
    assert result.evidence["onset_low"] <= 200 <= result.evidence["onset_high"]
    assert 0.45 < result.evidence["share"] < 0.55


def test_it_is_high_where_most_is_held_for_nothing_and_the_device_is_full() -> None:
    held = memory(memory_allocated=FLAT, memory_reserved=rising(24, 76, 100), memory_total=FLAT * 4)
    assert DETECTOR.detect(held).severity is Severity.HIGH


def test_peaks_tell_more_than_what_is_in_use_between_steps() -> None:
    held = memory(
        memory_allocated=FLAT,
        memory_reserved=rising(24, 60, 100),
        max_memory_allocated=rising(23, 59, 100),
        max_memory_reserved=rising(24, 60, 100),
    )
    assert not DETECTOR.detect(held).detected


def test_a_leak_is_not_called_fragmentation() -> None:
    held = memory(memory_allocated=rising(20, 40), memory_reserved=rising(26, 62))
    result = DETECTOR.detect(held)
    assert result.severity is None or result.severity < Severity.MEDIUM


@pytest.mark.parametrize("seed", range(4))
def test_healthy_memory_is_left_alone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    at = np.arange(STEPS) / STEPS
    for reserved in (
        FLAT * 2,  # a steady gap: the activations of a step
        24 + 20 * (1 - np.exp(-12 * at)),
        24 + 20 * (at > rng.uniform(0.1, 0.9)),
        24 + np.maximum.accumulate(rng.exponential(2, STEPS)),
        rising(24, 25),
    ):
        assert not DETECTOR.detect(
            memory(seed, memory_allocated=FLAT, memory_reserved=reserved)
        ).detected


@pytest.mark.parametrize("width", [1, 13, 200])
def test_it_is_the_same_however_cut(width: int) -> None:
    whole = memory(
        memory_allocated=FLAT, memory_reserved=rising(24, 50, 150), memory_total=FLAT * 4
    )
    state, events = DETECTOR.init(), []
    for start, stop in pairwise([None, *range(width, STEPS, width), None]):
        events += DETECTOR.update(state, whole.between(start, stop))
    once = DETECTOR.init()
    assert events == list(DETECTOR.update(once, whole))
    assert DETECTOR.conclude(state).to_dict() == DETECTOR.conclude(once).to_dict()


def test_the_cause_is_the_allocator() -> None:
    report = diagnose(memory(memory_allocated=FLAT, memory_reserved=rising(24, 60, 200)))
    assert report.attributions[0].cause == "memory_fragmentation"
    assert "expandable_segments" in report.attributions[0].remediation_hints[0]


def test_what_cannot_be_judged() -> None:
    assert DETECTOR.detect(SignalSet()).outcome is Outcome.NOT_APPLICABLE
    alone = memory(memory_reserved=rising(24, 50))
    assert DETECTOR.detect(alone).outcome is Outcome.NOT_APPLICABLE


@pytest.mark.parametrize("bad", [{"share": 2}, {"growth": -1}, {"min_points": 3}])
def test_parameters_are_checked(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(bad))):
        MemoryFragmentationDetector(**bad)
