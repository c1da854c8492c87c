"""The monitor in a real `fit` of Keras 3, with the backends torch and JAX."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("keras_programs.py")
STEPS = list(range(1, 21))

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["torch", "jax"])
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return what all trainings gave with one backend; Keras takes one for each process."""
    for needed in ("keras", request.param):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed")
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path_factory.mktemp("keras"))],
        capture_output=True, text=True, check=False, timeout=600,
        env={**os.environ, "KERAS_BACKEND": request.param},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def own_losses(means: list[float]) -> list[float]:
    """Undo the mean of each epoch of 9 batches of 16 and one of 10."""
    found: list[float] = []
    for epoch in (means[:10], means[10:]):
        before = 0.0
        for at, mean in enumerate(epoch):
            count = 16 * (at + 1) - (6 if at == 9 else 0)
            found.append((mean * count - before) / (16 if at < 9 else 10))
            before = mean * count
    return found


def test_a_healthy_training_is_silent(told: Any) -> None:
    one = told["healthy"]
    assert one["found"] == []
    series = one["series"]
    assert series["loss"][0] == STEPS
    assert series["loss"][1] == pytest.approx(own_losses(one["means"]), rel=1e-3)
    assert series["lr"][1] == pytest.approx([1e-2] * 20)
    assert series["val_loss"][0] == [10, 20]
    layers = {name.partition("/")[2] for name in series if name.startswith("grad_norm/")}
    assert len(layers) == 4
    assert all("body" in name or "head" in name for name in layers)
    assert series["grad_norm"][0] == STEPS
    assert max(series["grad_norm"][1]) > 0.5, "before clipping"
    assert any(name.startswith("update_ratio/") for name in series)
    assert one["own"] == [], "the optimizer is as it was"
    assert one["moved"]


def test_it_stops_at_the_step(told: Any) -> None:
    one = told["bad"]
    assert min(step for _, step, _ in one["found"]) == 4
    assert {"nan_detected"} <= {mode for mode, *_ in one["found"]}
    assert len(one["means"]) <= 6, "it stops behind the batch, with JAX at the latest soon after"


def test_raise_ends_the_training(told: Any) -> None:
    assert told["raise"]["raised"]
    assert told["raise"]["own"] == []


def test_a_loss_scale_is_taken_off_and_its_skipped_step_is_not_judged(told: Any) -> None:
    series = told["scaled"]["series"]
    assert max(series["grad_norm"][1]) < 100
    at = series["skipped_step"][0].index(4)
    assert series["skipped_step"][1][at] == 1.0
    assert 4 not in series["grad_norm"][0]
    assert series["loss"][0] == STEPS
    assert series["loss_scale"][1][:2] == [2.0**10] * 2
    assert told["scaled"]["finite"]


def test_a_state_goes_on(told: Any) -> None:
    assert told["first"]["state"] == 20
    assert (told["second"]["state"], told["second"]["segment"]) == (40, 0)
    assert told["second"]["found"] == []


def test_steps_can_be_left_out_with_torch(told: Any) -> None:
    if "skip" not in told:
        pytest.skip("the torch backend alone can")
    assert told["skip"]["finite"]
    assert min(step for _, step, _ in told["skip"]["found"]) == 4


def test_other_backends_have_their_losses(told: Any) -> None:
    """As the tensorflow backend would: nothing is caught but the mean, which is undone."""
    if "loss alone" not in told:
        pytest.skip("once is enough")
    one = told["loss alone"]
    assert one["found"] == []
    assert one["series"]["loss"][1] == pytest.approx(own_losses(one["means"]), rel=1e-3)
    assert "grad_norm" not in one["series"]


def test_its_own_errors_do_not_end_the_training(told: Any) -> None:
    one = told["broken"]
    assert len(one["told"]) == 1
    assert "planted" in one["told"][0]
    assert len(one["means"]) == 20
    assert one["series"]["loss"][0] == STEPS, "losses are judged all the same"
    assert one["moved"]
