"""Hard healthy controls: all that looks odd and is not."""

from __future__ import annotations

from typing import Any

import numpy as np
from faults import Planted, Truth
from trainer import Fault, Row, Run

CONTROLS: dict[str, Any] = {}


def control(make: Any) -> Any:
    CONTROLS[make.__name__] = make
    return make


def _healthy(name: str, fault: Fault | None = None, **settings: Any) -> Planted:
    return Planted(fault or Fault(), Truth(f"healthy:{name}"), settings)


@control
def plain(family: Any, steps: int, rng: Any) -> Planted:
    return _healthy("plain")


@control
def long_converged(family: Any, steps: int, rng: Any) -> Planted:
    return _healthy("long_converged", steps=2 * steps)


@control
def cyclic(family: Any, steps: int, rng: Any) -> Planted:
    return _healthy("cyclic", schedule="cyclic")


@control
def warm_restarts(family: Any, steps: int, rng: Any) -> Planted:
    return _healthy("warm_restarts", schedule="restarts")


@control
def step_decay(family: Any, steps: int, rng: Any) -> Planted:
    return _healthy("step_decay", schedule="steps")


@control
def tiny_batches(family: Any, steps: int, rng: Any) -> Planted:
    return _healthy("tiny_batches", batch=4, lr=family.lr / 3)


@control
def accumulation(family: Any, steps: int, rng: Any) -> Planted:
    return _healthy("accumulation", accumulate=4, batch=max(family.batch // 4, 4))


@control
def no_shuffling(family: Any, steps: int, rng: Any) -> Planted:
    return _healthy("no_shuffling", shuffle=False)


@control
def dropout(family: Any, steps: int, rng: Any) -> Planted:
    return _healthy("dropout", dropout=0.3)


@control
def low_rate(family: Any, steps: int, rng: Any) -> Planted:
    return _healthy("low_rate", lr=family.lr / 4)


@control
def fine_tuning(family: Any, steps: int, rng: Any) -> Planted:
    """A part is frozen on purpose from the first step."""
    first = {"gru_text": "embed", "transformer": "embed", "cnn_digits": "conv1"}
    return _healthy("fine_tuning", frozen=(first.get(family.name, "layers.0"),))


@control
def scaler_skips(family: Any, steps: int, rng: Any) -> Planted:
    """Dynamic loss scaling that finds its level, and a step left out now and then."""

    class Skips(Fault):
        def start(self, run: Run) -> None:
            run.scale = 2.0**24

    return _healthy("scaler_skips", Skips(), scaler=True)


@control
def resumed(family: Any, steps: int, rng: Any) -> Planted:
    """The job went back to its last checkpoint, optimizer and all."""
    at = int(rng.integers(int(0.4 * steps), int(0.65 * steps)))

    class Resumed(Fault):
        def row(self, run: Run, row: Row) -> Row:
            return row | {"step": row["step"] - 20} if run.step >= at else row

    return _healthy("resumed", Resumed())


@control
def label_noise(family: Any, steps: int, rng: Any) -> Planted:
    import torch

    class Noise(Fault):
        def batch(self, run: Run, x: Any, y: Any) -> Any:
            if y.is_floating_point():
                return x, y + 0.3 * torch.randn_like(y)
            wrong = torch.rand(y.shape) < 0.1
            return x, torch.where(wrong, y.flatten()[torch.randperm(y.numel())].view(y.shape), y)

    return _healthy("label_noise", Noise())


@control
def busy_machine(family: Any, steps: int, rng: Any) -> Planted:
    """Steps of uneven length, pauses for evaluation and checkpoints, memory that settles."""
    noise = np.random.default_rng(int(rng.integers(1 << 30)))

    class Busy(Fault):
        def row(self, run: Run, row: Row) -> Row:
            wait = 0.01 * noise.lognormal(0, 0.5)
            pause = 1.5 if run.step % 100 == 99 else 0.0
            used = 20e9 + 5e9 * (1 - 0.97**run.step) + noise.normal(0, 0.3e9)
            return row | {
                "step_time": 0.1 * noise.lognormal(0, 0.15) + wait + pause, "data_time": wait,
                "memory_allocated": used, "memory_reserved": max(26e9, used * 1.05),
                "memory_total": 80e9,
            }  # fmt: skip

    return _healthy("busy_machine", Busy())
