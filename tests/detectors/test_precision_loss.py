"""Updates that a number format rounds away, apart from all else that leaves elements unchanged."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from ml_systems_debugger.core import DetectionResult, Signal
from ml_systems_debugger.detectors import PrecisionLossDetector

Floats = npt.NDArray[np.float64]


def train(
    round_to: Callable[[Floats], Floats], rate: float, *, sparse: float = 1.0, onset: int = 0
) -> DetectionResult:
    """Four layers of weights that are stored as `round_to` stores them, with random gradients."""
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 0.1, 2000).astype(np.float32).astype(float) for name in "abcd"}
    rows = []
    for step in range(60):
        rows.append(Signal("lr", rate, step=step))
        for name, held in weights.items():
            gradient = rng.normal(size=held.size) * (rng.random(held.size) < sparse)
            keep = round_to if step >= onset else _float32
            new = keep(held - rate * gradient)
            moved = float(np.linalg.norm(new - held) / np.linalg.norm(new))
            same = float((new == held)[gradient != 0].mean())
            weights[name] = new
            rows.append(Signal(f"update_ratio/{name}", moved, step=step))
            rows.append(Signal(f"update_zero_fraction/{name}", same, step=step))
    return PrecisionLossDetector().detect(rows)


def _float32(values: Floats) -> Floats:
    return values.astype(np.float32).astype(np.float64)


def _bfloat16(values: Floats) -> Floats:
    bits = values.astype(np.float32).view(np.uint32)
    nearest = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (nearest & np.uint32(0xFFFF0000)).view(np.float32).astype(np.float64)


def test_updates_that_bfloat16_rounds_away_are_found_with_their_onset() -> None:
    found = train(_bfloat16, 2e-5, onset=20)
    assert found.severity == "high"
    # The first step in the new format rounds every weight, and so moves all.
    assert found.onset_step in (20, 21)
    assert found.evidence["standing"] == found.evidence["layers"] == 4
    assert 0.5 < found.evidence["unchanged"] < 1.0


@pytest.mark.parametrize("rate", [1e-2, 1e-4, 1e-6, 1e-8])
def test_float32_is_healthy_at_any_rate_that_still_moves_something(rate: float) -> None:
    assert not train(_float32, rate).detected


def test_bfloat16_is_healthy_where_updates_are_large_enough() -> None:
    assert not train(_bfloat16, 1e-2).detected


def test_rows_without_a_gradient_are_no_lost_updates() -> None:
    assert not train(_float32, 1e-3, sparse=0.02).detected


def test_a_share_alone_tells_nothing_of_the_format() -> None:
    rows = [Signal(f"update_zero_fraction/{n}", 0.9, step=i) for i in range(40) for n in "abc"]
    assert not PrecisionLossDetector().detect(rows).detected
