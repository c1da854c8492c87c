"""What makes the detectors look sooner: loss or gradients that stand out."""

from __future__ import annotations

from collections.abc import Iterable

from ml_systems_debugger.core import SeriesKey
from ml_systems_debugger.monitoring._steps import StepBuffer
from ml_systems_debugger.monitoring._watch import Watch


def alerts(values: Iterable[float], name: str = "loss") -> list[int]:
    """Return at which of the values there is an alert."""
    watch, buffer, found = Watch(), StepBuffer(1000), []
    for step, value in enumerate(values):
        buffer.begin(step)
        buffer.put(SeriesKey(name), value)
        if watch.alert(buffer):
            found.append(step)
    return found


def test_one_value_far_above_the_mean_alerts_for_a_while() -> None:
    assert alerts([1.0] * 50 + [4.0] + [1.0] * 100) == list(range(50, 82))
    assert alerts([1.0] * 50 + [2.5] + [1.0] * 100) == []


def test_values_that_stay_half_above_the_mean_alert_at_the_eighth() -> None:
    assert alerts([1.0] * 50 + [2.0] * 8 + [1.0] * 10)[0] == 57
    assert alerts([1.0] * 50 + ([2.0] * 7 + [1.0]) * 4) == []


def test_noise_alerts_nobody() -> None:
    assert alerts([1.0 + 0.4 * (step % 2) for step in range(500)]) == []


def test_a_value_that_is_no_number_does_not_blind_it() -> None:
    assert alerts([1.0] * 50 + [float("nan")] + [1.0] * 20 + [4.0])[-1] == 71
    assert alerts([1.0] * 50 + [float("inf")])[0] == 50


def test_other_quantities_are_not_looked_at() -> None:
    assert alerts([1.0] * 50 + [100.0], "step_time") == []
