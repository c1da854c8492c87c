"""Divergences of pairs of samples."""

from __future__ import annotations

import numpy as np
import pytest

from ml_systems_debugger import DistributionSignalExtractor, Signal, SignalSet

RNG = np.random.default_rng(0)


def values(found: list[Signal]) -> dict[str, float]:
    return {s.name: s.value for s in found if not s.name.endswith("_distribution")}


@pytest.mark.parametrize("words", [("reference", "serving"), ("training", "production")])
def test_a_shift_shows_in_every_divergence(words: tuple[str, str]) -> None:
    pair = dict(zip(words, (RNG.normal(size=5000), RNG.normal(1, 1, 5000)), strict=True))
    found = values(DistributionSignalExtractor().extract(pair))
    assert found["kl_divergence"] == pytest.approx(0.5, abs=0.1)  # of two unit normals: shift^2 / 2
    assert found["js_divergence"] == pytest.approx(0.112, abs=0.02)  # nats, by quadrature
    assert found["psi"] > 0.5


def test_equal_samples_are_close() -> None:
    pair = {"reference": RNG.normal(size=5000), "serving": RNG.normal(size=5000)}
    assert values(DistributionSignalExtractor().extract(pair))["kl_divergence"] < 0.02


def test_what_the_reference_never_held_costs_much_and_not_everything() -> None:
    found = values(
        DistributionSignalExtractor().extract({"reference": np.zeros(500), "serving": np.ones(500)})
    )
    assert np.isfinite(found["kl_divergence"])
    assert found["kl_divergence"] > 3


def test_features_are_paired_and_referenced() -> None:
    ages = RNG.normal(size=100)
    found = DistributionSignalExtractor(step=3).extract(
        {"reference": {"age": ages, "only": ages}, "serving": {"age": ages}}
    )
    assert {s.layer_name for s in found} == {"age"}
    assert {s.step for s in found} == {3}
    assert next(s.value for s in found if s.name == "training_distribution") is ages


def test_a_signal_set_gains_the_divergence_at_the_serving_steps() -> None:
    run = SignalSet.of(
        [
            Signal("training_distribution", RNG.normal(size=2000), step=0, layer_name="f"),
            *[
                Signal("serving_distribution", RNG.normal(i, 1, 2000), step=i, layer_name="f")
                for i in range(3)
            ],
        ]
    )
    (kl,) = SignalSet.of(DistributionSignalExtractor().extract(run)).select("kl_divergence")
    assert kl.steps.tolist() == [0, 1, 2]
    assert (np.diff(kl.values) > 0).all()


def test_a_side_without_a_number_gives_nothing() -> None:
    found = DistributionSignalExtractor().extract(
        {"reference": np.full(9, np.nan), "serving": np.ones(9)}
    )
    assert values(found) == {}


@pytest.mark.parametrize("raw", [{"reference": [1.0]}, [1.0, 2.0], 3])
def test_no_pair_is_an_error(raw: object) -> None:
    with pytest.raises(TypeError, match="reference"):
        DistributionSignalExtractor().extract(raw)


def test_bins_are_checked() -> None:
    with pytest.raises(ValueError, match="bins"):
        DistributionSignalExtractor(bins=1)
