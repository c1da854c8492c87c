"""Trainings with Keras: run with KERAS_BACKEND set and a folder; prints what was found as JSON."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np

from ml_systems_debugger.core.ring_file import read_ring
from ml_systems_debugger.integrations import keras as bridge
from ml_systems_debugger.integrations._keras_catch import Catch
from ml_systems_debugger.monitoring import FaultFound, MonitorWarning

FOLDER = Path(sys.argv[1])
BATCHES = 10


def data(bad: int | None = None) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16 * BATCHES - 6, 4)).astype("float32")  # the last batch is smaller
    y = x.sum(1, keepdims=True)
    if bad is not None:
        y[16 * bad] = np.nan
    return x, y


class Losses(keras.callbacks.Callback):
    """The loss of each batch before it was trained, by another way."""

    def __init__(self, x: Any, y: Any) -> None:
        super().__init__()
        self.x, self.y, self.own, self.means = x, y, [], []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.means.append(float(logs["loss"]))


def fitted(name: str, bad: int | None = None, fit: Any = None, optimizer: Any = None,
           **options: Any) -> dict[str, Any]:  # fmt: skip
    keras.utils.set_random_seed(0)
    x, y = data(bad)
    model = keras.Sequential([
        keras.Input((4,)), keras.layers.Dense(8, "tanh", name="body"),
        keras.layers.Dense(1, name="head"),
    ])  # fmt: skip
    model.compile(optimizer or keras.optimizers.SGD(1e-2, clipnorm=0.5), "mse")
    path = FOLDER / f"{name}.ring"
    callback = bridge.MonitorCallback(recorder=str(path), **{"action": "none", **options})
    seen = Losses(x, y)
    given = {"epochs": 2, "batch_size": 16, "shuffle": False, "verbose": 0,
             "validation_data": (x[:32], np.nan_to_num(y[:32])), **(fit or {})}  # fmt: skip
    raised = None
    before = [w.copy() for w in model.get_weights()]
    try:
        model.fit(x, y, callbacks=[callback, seen], **given)
    except FaultFound as fault:
        raised = str(fault)
        callback.on_train_end()
    monitor = callback.monitor
    assert monitor is not None
    series = read_ring(path.read_bytes(), name).series if path.exists() else []
    return {
        "found": [[str(f.failure_mode), f.onset_step, f.layer] for f in monitor.findings],
        "series": {str(s.key): [s.steps.tolist(), s.values.tolist()] for s in series},
        "means": seen.means, "raised": raised, "state": callback.state_dict()["monitor"]["step"],
        "segment": callback.state_dict()["monitor"]["segment"],
        "finite": bool(all(np.isfinite(w).all() for w in model.get_weights())),
        "moved": any((a != b).any() for a, b in zip(before, model.get_weights(), strict=True)),
        "own": sorted(set(vars(model.optimizer)) & {"apply", "scale_loss", "stateless_apply"}),
    }  # fmt: skip


def scaled(bad: int | None = None) -> Any:
    inner = keras.optimizers.SGD(1e-2)
    return keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0**10)


def main() -> dict[str, Any]:
    done = {
        "healthy": fitted("healthy", strict=True),
        "bad": fitted("bad", bad=3, action="stop"),
        "raise": fitted("raise", bad=3, action="raise"),
        "scaled": fitted("scaled", bad=3, optimizer=scaled()),
        "first": fitted("first", state_path=FOLDER / "state.json"),
        "second": fitted("second", state_path=FOLDER / "state.json"),
    }
    if keras.backend.backend() == "torch":
        done["skip"] = fitted("skip", bad=3, skip_nonfinite=True)
        kept = bridge.TorchCatch
        bridge.TorchCatch = lambda model, monitor, every, skip: Catch(model, monitor, every)
        done["loss alone"] = fitted("alone", strict=True)
        bridge.TorchCatch = kept

    def boom(*_: Any, **__: Any) -> Any:
        raise RuntimeError("planted")

    for catch in (bridge.TorchCatch, bridge.JaxCatch):
        for method in ("_measure", "_send"):
            if hasattr(catch, method):
                setattr(catch, method, boom)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", MonitorWarning)
        done["broken"] = fitted("broken")
    done["broken"]["told"] = [str(w.message) for w in told if w.category is MonitorWarning]
    return done


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps(main()))
