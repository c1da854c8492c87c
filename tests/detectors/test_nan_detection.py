"""NaN wherever it is: where it began, how bad it is, and which NaN is no failure."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from ml_systems_debugger import (
    NaNDetectionDetector,
    Outcome,
    Series,
    SeriesKey,
    Severity,
    Signal,
    SignalSet,
    Status,
    diagnose,
)

NAN = float("nan")


def signals(name: str, values: Any, **more: Any) -> list[Signal]:
    return [Signal(name, v, step=i, **more) for i, v in enumerate(values)]


def detect(*parts: list[Signal]) -> Any:
    return NaNDetectionDetector().detect([s for part in parts for s in part])


def test_a_loss_that_stays_nan_is_critical_from_its_first_nan_on() -> None:
    found = detect(signals("loss", [1.0] * 20 + [NAN] * 10))
    assert (found.severity, found.onset_step, found.end_step) == (Severity.CRITICAL, 20, None)
    assert found.evidence["goes_on"] is True
    assert found.evidence["count"] == 10
    assert found.evidence["last_finite"] == 1.0


def test_a_loss_that_recovers_is_high() -> None:
    found = detect(signals("loss", [1.0] * 20 + [NAN] + [1.0] * 20))
    assert (found.severity, found.onset_step, found.end_step) == (Severity.HIGH, 20, 20)
    assert found.evidence["recovered"] is True


def test_the_last_value_alone_is_found() -> None:
    assert detect(signals("loss", [1.0] * 20 + [NAN])).onset_step == 20


def test_nobody_has_to_flag_it_and_any_metric_counts() -> None:
    found = detect(signals("some_metric", [1.0, NAN, 2.0]))
    assert found.detected
    assert found.severity < Severity.HIGH


@pytest.mark.parametrize("name", ["eval_perplexity", "val_accuracy", "aux_metric"])
def test_a_metric_beside_a_sound_loss_is_medium_at_most(name: str) -> None:
    found = detect(signals(name, [1.0] * 9 + [NAN] * 6), signals("loss", [1.0] * 15))
    assert found.detected
    assert found.severity <= Severity.MEDIUM


def test_a_held_out_loss_counts_by_what_else_is_known() -> None:
    held_out = signals("val_loss", [1.0] * 9 + [NAN] * 6)
    assert detect(held_out, signals("loss", [1.0] * 15)).severity == Severity.MEDIUM
    assert detect(held_out).severity == Severity.HIGH


def test_a_gradient_norm_that_recovers_is_no_more_than_medium() -> None:
    # Fewer good values than end an occurrence: it has recovered all the same.
    found = detect(signals("grad_norm", [1.0] * 20 + [NAN] + [1.0] * 3))
    assert found.severity == Severity.MEDIUM
    assert found.evidence["goes_on"] is False
    assert "recovers" in found.message


def test_overflows_at_the_start_of_float16_training_are_no_more_than_medium() -> None:
    found = detect(signals("grad_norm", [NAN] * 5 + [1.0] * 60))
    assert found.severity == Severity.MEDIUM


@pytest.mark.parametrize("name", ["training_distribution", "feature/age"])
def test_missing_values_of_data_are_low(name: str) -> None:
    found = detect([Signal(name, np.array([1.0, NAN]), step=0)])
    assert found.severity == Severity.LOW


def test_with_a_loss_scale_it_is_how_training_works() -> None:
    scale = signals("loss_scale", [65536.0] * 60)
    found = detect(signals("grad_norm", [1.0] * 20 + [NAN] + [1.0] * 39), scale)
    assert found.severity == Severity.LOW
    assert found.evidence["loss_scaling"] is True


def test_gradients_that_stay_nan_are_critical() -> None:
    norms = signals("grad_norm", [1.0] * 20 + [NAN] * 5)
    assert detect(norms).severity == Severity.CRITICAL


def test_runs_with_few_good_values_between_are_one_occurrence() -> None:
    values = [1.0] * 10 + [NAN, 1.0, 1.0, NAN, 1.0] + [1.0] * 30 + [NAN] + [1.0] * 20
    found = detect(signals("loss", values))
    assert [(f.onset_step, f.end_step) for f in found.findings] == [(10, 13), (45, 45)]


def test_each_layer_and_replica_has_its_own_finding_and_the_first_is_named() -> None:
    found = detect(
        signals("grad_norm", [1.0] * 10 + [NAN] * 5, layer_name="fc1", replica_id=1),
        signals("grad_norm", [1.0] * 8 + [NAN] * 7, layer_name="fc2", replica_id=0),
        signals("loss", [1.0] * 9 + [NAN] * 6),
    )
    places = {(f.layer, f.replica_id, f.onset_step) for f in found.findings}
    assert places == {("fc1", 1, 10), ("fc2", 0, 8), (None, None, 9)}
    assert (found.layer, found.onset_step) == ("fc2", 8)
    assert {f.evidence["began_at"] for f in found.findings} == {8}


def test_series_that_read_alike_do_not_collide() -> None:
    plain, split = [1.0] * 20 + [NAN] * 10, [1.0] * 20 + [NAN] * 10
    assert len(detect(signals("loss", plain), signals("train/loss", split)).findings) == 2
    array = Signal("activation", np.array([NAN, 1.0]), step=1)
    assert len(detect([array, Signal("activation", NAN, step=1)]).findings) == 2


def test_several_occurrences_within_one_step_are_kept_apart() -> None:
    values = [1.0] * 3 + [NAN] + [1.0] * 12 + [NAN] + [1.0] * 3
    found = detect([Signal("loss", v, step=5) for v in values])
    assert [f.onset_step for f in found.findings] == [5, 5]


def test_an_array_tells_where_inside_it_is() -> None:
    array = np.zeros((3, 4), np.float32)
    array[1, 2] = np.nan
    found = detect([Signal("parameter", array, step=7, layer_name="fc")])
    assert (found.severity, found.onset_step, found.layer) == (Severity.CRITICAL, 7, "fc")
    assert found.evidence["first_flat_index"] == 6
    assert found.evidence["first_index"] == (1, 2)
    assert (found.evidence["bad_elements"], found.evidence["elements"]) == (1, 12)
    assert array[1, 2] != array[1, 2], "the array is left alone"


def test_a_torch_tensor_is_an_array() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.tensor([[1.0, 2.0], [NAN, 4.0]], dtype=torch.bfloat16, requires_grad=True)
    found = detect([Signal("gradient", tensor, step=3, layer_name="fc")])
    assert found.evidence["first_index"] == (1, 0)


@pytest.mark.parametrize(
    "array", [np.array(["a", "b"]), np.array([None, "x"], dtype=object), np.arange(4)]
)
def test_arrays_without_nan_by_nature_are_no_error(array: Any) -> None:
    assert not detect([Signal("tokens", array, step=0)]).detected


def test_a_series_that_flickers_keeps_few_findings_and_its_end() -> None:
    values = np.where(np.arange(6000) % 12 == 5, np.nan, 1.0)
    values[-4:] = np.nan
    run = SignalSet([Series(SeriesKey("loss"), np.arange(6000), values)])
    found = NaNDetectionDetector().detect(run)
    assert len(found.findings) < 20
    assert "only counted" in found.reason
    assert (found.severity, found.onset_step) == (Severity.CRITICAL, 5993)  # 5993, 5996, ...: one
    detector, events = NaNDetectionDetector(), []
    state = detector.init()
    for start, stop in pairwise([None, *range(7, 6000, 501), 5997, None]):
        events += detector.update(state, run.between(start, stop))
    assert detector.conclude(state).to_dict() == found.to_dict()


def test_it_is_no_witness_of_health() -> None:
    assert diagnose({"foo": list(range(50))}).status == Status.INSUFFICIENT
    assert detect(signals("loss", [1.0, 2.0])).outcome is Outcome.INSUFFICIENT
    assert detect(signals("loss", [1.0] * 10)).judged == ("loss",)
