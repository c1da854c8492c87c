"""Gradient norms from whatever holds gradients."""

from __future__ import annotations

import numpy as np
import pytest

from ml_systems_debugger import GradientSignalExtractor, Signal, SignalSet

GRADIENTS = {"fc.weight": np.array([[3.0, 0.0], [0.0, 4.0]]), "fc.bias": np.array([12.0])}


def test_norms_over_all_and_per_layer() -> None:
    found = GradientSignalExtractor(step=7, keep_arrays=False).extract(GRADIENTS)
    values = {(s.name, s.layer_name): s.value for s in found}
    assert values == {
        ("grad_norm", None): 13.0,
        ("grad_norm", "fc.weight"): 5.0,
        ("grad_norm", "fc.bias"): 12.0,
    }
    assert {s.step for s in found} == {7}


def test_arrays_are_referenced() -> None:
    found = GradientSignalExtractor().extract(GRADIENTS)
    held = {s.layer_name: s.value for s in found if s.name == "gradient"}
    assert held["fc.bias"] is GRADIENTS["fc.bias"]


def test_non_finite_elements_are_counted() -> None:
    found = GradientSignalExtractor().extract({"a": np.array([np.nan, np.inf, 1.0])})
    assert [(s.layer_name, s.value) for s in found if s.name == "grad_nonfinite"] == [("a", 2)]


def test_a_signal_set_gains_norms_at_the_steps_of_its_gradients() -> None:
    run = SignalSet.of(
        [Signal("gradient", a * i, step=10 * i, layer_name=n)
         for i in (1, 2) for n, a in GRADIENTS.items()]
    )  # fmt: skip
    found = SignalSet.of(GradientSignalExtractor().extract(run))
    (total,) = found.select("grad_norm", layer=None)
    assert total.steps.tolist() == [10, 20]
    np.testing.assert_allclose(total.values, [13.0, 26.0])
    assert len(found.select("grad_norm")) == 3


def test_nothing_is_derived_from_nothing() -> None:
    run = SignalSet.of([Signal("loss", 1.0, step=0)])
    assert len(SignalSet.of(GradientSignalExtractor().extract(run))) == 0
    assert GradientSignalExtractor().extract({}) == []


def test_text_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="weights"):
        GradientSignalExtractor().extract({"weights": "none"})


def test_torch_parameters_give_their_gradients() -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(2, 1)
    model(torch.ones(4, 2)).sum().backward()
    found = GradientSignalExtractor().extract(model)
    norms = {s.layer_name: s.value for s in found if s.name == "grad_norm"}
    assert norms["bias"] == pytest.approx(4.0)
    assert norms["weight"] == pytest.approx(np.sqrt(32))
    assert norms[None] == pytest.approx(np.sqrt(48))
    model.zero_grad(set_to_none=True)
    assert GradientSignalExtractor().extract(model) == []
