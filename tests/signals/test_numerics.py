"""Statistics of arrays as signals."""

from __future__ import annotations

import numpy as np
import pytest

from ml_systems_debugger import NumericalSignalExtractor, Signal, SignalSet, diagnose


def test_statistics_are_of_the_finite_values() -> None:
    array = np.array([0.0, 0.0, 3.0, -5.0, np.nan, np.inf, -np.inf, 2.0])
    found = {s.name: s.value for s in NumericalSignalExtractor("activation").extract(array)}
    finite = np.array([0.0, 0.0, 3.0, -5.0, 2.0])
    assert found["activation_nan_count"] == 1
    assert found["activation_inf_count"] == 2
    assert found["activation_absmax"] == 5
    assert found["activation_mean"] == pytest.approx(finite.mean())
    assert found["activation_std"] == pytest.approx(finite.std(), rel=0.2)
    assert found["activation_zero_fraction"] == pytest.approx(2 / 8)


def test_an_array_without_a_finite_value_has_no_mean() -> None:
    names = {s.name for s in NumericalSignalExtractor().extract(np.full(3, np.nan))}
    assert "array_nan_count" in names
    assert "array_mean" not in names


def test_names_become_layers_through_nested_mappings() -> None:
    found = NumericalSignalExtractor().extract({"block": {"w": np.ones(2), "b": np.zeros(2)}})
    assert {s.layer_name for s in found} == {"block.w", "block.b"}


def test_a_signal_set_gains_series_at_the_same_steps() -> None:
    run = SignalSet.of([Signal("activation", np.ones(3) * i, step=5 * i) for i in range(1, 4)])
    found = SignalSet.of(NumericalSignalExtractor().extract(run))
    (absmax,) = found.select("activation_absmax")
    assert absmax.steps.tolist() == [5, 10, 15]
    assert absmax.values.tolist() == [1.0, 2.0, 3.0]


def test_arrays_of_text_are_no_failure_of_a_diagnosis() -> None:
    signals = [Signal("tokens", np.array(["a", "b"]), step=i) for i in range(3)]
    report = diagnose([*signals, *[Signal("loss", 1.0 / (i + 1), step=i) for i in range(30)]])
    assert not report.failed_checks
    assert not report.unread


def test_text_beside_numbers_is_left_out() -> None:
    found = NumericalSignalExtractor().extract({"words": np.array(["a"]), "x": np.ones(2)})
    assert {s.layer_name for s in found} == {"x"}


def test_torch_tensors_of_every_float_are_taken() -> None:
    torch = pytest.importorskip("torch")
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        found = NumericalSignalExtractor().extract(torch.tensor([1.0, -2.0], dtype=dtype))
        assert {s.name: s.value for s in found}["array_absmax"] == 2.0
