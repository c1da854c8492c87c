"""Faults that get into a training run, with what is known of each: modes, causes, onset, place.

Where two causes leave the same log, both are accepted, and the label says so.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from trainer import Fault, Row, Run

Tensor = torch.Tensor


@dataclass(frozen=True)
class Truth:
    """What is known of a run."""

    fault: str
    modes: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    onset: int | None = None
    abrupt: bool = True
    layer: str | None = None
    replica: int | None = None
    minimal: bool = True  # visible with loss, lr and grad_norm alone


@dataclass
class Planted:
    """A fault with its truth and the settings that it needs."""

    fault: Fault
    truth: Truth
    settings: dict[str, Any] = field(default_factory=dict)


Maker = Callable[[Any, int, Any], Planted]
MAKERS: dict[str, tuple[Maker, frozenset[str] | None]] = {}
_BLOWN = ("divergent_training", "exploding_gradients", "learning_rate_instability",
          "loss_spike", "nan_detected", "inf_detected", "parameter_runaway")  # fmt: skip
_FED = "input_out_of_range"  # shows in the statistics of the batches, whatever the network does


def planted(name: str, *families: str) -> Callable[[Maker], Maker]:
    """Register a fault, for the families where it makes sense (all by default)."""

    def add(maker: Maker) -> Maker:
        MAKERS[name] = (maker, frozenset(families) or None)
        return maker

    return add


def onset_of(rng: Any, steps: int) -> int:
    return int(rng.integers(int(0.4 * steps), int(0.65 * steps)))


@planted("lr_jump")
def lr_jump(family: Any, steps: int, rng: Any) -> Planted:
    at, factor = onset_of(rng, steps), float(rng.choice([100.0, 300.0, 1000.0]))

    class Jump(Fault):
        def lr(self, run: Run, lr: float) -> float:
            return lr * factor if run.step >= at else lr

    causes = ("learning_rate_schedule_fault", "learning_rate_too_high")
    return Planted(Jump(), Truth("lr_jump", _BLOWN, causes, at))


@planted("lr_too_high")
def lr_too_high(family: Any, steps: int, rng: Any) -> Planted:
    factor = float(rng.choice([300.0, 1000.0]))
    truth = Truth("lr_too_high", (*_BLOWN, "loss_plateau", "dead_units", "feature_collapse"),
                  ("learning_rate_too_high",), 0, False)  # fmt: skip
    return Planted(Fault(), truth, {"lr": family.lr * factor, "clip": None})


@planted("lr_too_low")
def lr_too_low(family: Any, steps: int, rng: Any) -> Planted:
    truth = Truth("lr_too_low", ("loss_plateau", "frozen_parameters", "precision_loss"),
                  ("learning_rate_too_low",), 0, False)  # fmt: skip
    return Planted(Fault(), truth, {"lr": family.lr * 1e-6})


@planted("nan_batch", "mlp_digits", "autoencoder", "cnn_digits", "mlp_cancer", "regression")
def nan_batch(family: Any, steps: int, rng: Any) -> Planted:
    at = onset_of(rng, steps)

    class Bad(Fault):
        def batch(self, run: Run, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            if run.step == at:
                x = x.clone()
                x.view(-1)[3] = float("nan")
            return x, y

    # With the step left out only this batch shows; without, the weights are lost at once.
    guard = bool(rng.random() < 0.5)
    causes = ("non_finite_input", "corrupted_batch") if guard else (
        "non_finite_input", "corrupted_batch", "invalid_operation")  # fmt: skip
    return Planted(Bad(), Truth("nan_batch", ("nan_detected",), causes, at), {"guard": guard})


@planted("invalid_operation")
def invalid_operation(family: Any, steps: int, rng: Any) -> Planted:
    at = onset_of(rng, steps)

    class Log0(Fault):
        def loss(self, run: Run, loss: Tensor, out: Tensor) -> Tensor:
            # A regulariser that takes the logarithm of something that can be zero.
            extra = torch.log(out.abs().mean() * 0.0) if run.step >= at else 0.0
            return loss + 0.0 * extra

    causes = ("invalid_operation", "non_finite_input")
    return Planted(Log0(), Truth("invalid_operation", ("nan_detected", "inf_detected"), causes, at))


@planted("no_clipping", "gru_text", "transformer")
def exploding_weights(family: Any, steps: int, rng: Any) -> Planted:
    at = onset_of(rng, steps)

    class Blown(Fault):
        def updated(self, run: Run) -> None:
            if run.step >= at:  # the recurrent or output weights run away
                for name, p in run.network.named_parameters():
                    if name in ("gru.weight_hh_l0", "blocks.1.down.weight"):
                        p.data.mul_(1.15)

    causes = ("missing_gradient_clipping", "learning_rate_too_high", "poor_initialization")
    return Planted(Blown(), Truth("no_clipping", _BLOWN, causes, at, False), {"clip": None})


@planted("not_zeroed")
def not_zeroed(family: Any, steps: int, rng: Any) -> Planted:
    at = onset_of(rng, steps)

    class Kept(Fault):
        def batch(self, run: Run, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            run.zero_grad = run.step + 1 < at
            return x, y

    causes = ("gradients_not_zeroed",)
    return Planted(Kept(), Truth("not_zeroed", _BLOWN, causes, at, False), {"clip": None})


@planted("vanishing", "mlp_digits", "autoencoder", "mlp_cancer", "regression")
def vanishing(family: Any, steps: int, rng: Any) -> Planted:
    class Deep(Fault):
        def start(self, run: Run) -> None:
            data = run.data or run.family.data()
            wide, out = data.x.shape[1], run.network.layers[-1].out_features
            from families import Mlp

            run.network = Mlp([wide, *[32] * 9, out], nn.Sigmoid)
            run.optimizer = run.new_optimizer()

    causes = ("saturating_activations", "poor_initialization")
    return Planted(Deep(), Truth("vanishing", ("vanishing_gradients", "loss_plateau"), causes, 0,
                                 False, "layers.0", minimal=False))  # fmt: skip


@planted("dead_units", "mlp_digits", "cnn_digits", "mlp_cancer")
def dead_units(family: Any, steps: int, rng: Any) -> Planted:
    at = onset_of(rng, steps)
    kind = {"cnn_digits": ("bn2.bias", "acts.1"), "mlp_cancer": ("norms.1.bias", "acts.1")}
    name, act = kind.get(family.name, ("layers.1.bias", "acts.1"))

    class Dead(Fault):
        def updated(self, run: Run) -> None:
            if run.step == at:
                dict(run.network.named_parameters())[name].data.sub_(50.0)

    modes = ("dead_units", "loss_plateau", "vanishing_gradients", "loss_spike",
             "divergent_training", "feature_collapse", "frozen_parameters")  # fmt: skip
    causes = ("dead_activations", "learning_rate_too_high")
    return Planted(Dead(), Truth("dead_units", modes, causes, at + 1, layer=act))


@planted("frozen", "mlp_digits", "gru_text", "autoencoder", "cnn_digits", "transformer",
         "mlp_cancer", "regression")  # fmt: skip
def frozen(family: Any, steps: int, rng: Any) -> Planted:
    at = onset_of(rng, steps)
    names = {"gru_text": "gru.weight_hh_l0", "cnn_digits": "conv2.weight",
             "transformer": "blocks.1.up.weight"}  # fmt: skip
    name = names.get(family.name, "layers.1.weight")

    class Lost(Fault):
        def __init__(self) -> None:
            self.held: Tensor | None = None

        def updated(self, run: Run) -> None:
            p = dict(run.network.named_parameters())[name]
            if run.step >= at:  # the optimizer does not know of it any more
                if self.held is not None:
                    p.data.copy_(self.held)
            else:
                self.held = p.detach().clone()

    truth = Truth("frozen", ("frozen_parameters",), ("parameters_not_updated",), at, layer=name,
                  minimal=False)  # fmt: skip
    return Planted(Lost(), truth)


@planted("corrupted_labels", "mlp_digits", "cnn_digits", "mlp_cancer", "gru_text", "transformer")
def corrupted_labels(family: Any, steps: int, rng: Any) -> Planted:
    at = onset_of(rng, steps)

    class Wrong(Fault):
        def batch(self, run: Run, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            if run.step >= at:
                y = y.flatten()[torch.randperm(y.numel())].view(y.shape)
            return x, y

    causes = ("corrupted_labels", "data_distribution_change", "corrupted_batch")
    modes = ("divergent_training", "loss_spike", "exploding_gradients", "loss_plateau",
             "overfitting")  # fmt: skip
    return Planted(Wrong(), Truth("corrupted_labels", modes, causes, at))


@planted("unscaled", "mlp_digits", "cnn_digits", "mlp_cancer", "autoencoder", "regression")
def unscaled(family: Any, steps: int, rng: Any) -> Planted:
    at = onset_of(rng, steps)

    class Raw(Fault):
        def batch(self, run: Run, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            if run.step >= at:
                x = x * 30.0
                y = x if run.family.name == "autoencoder" else y
            return x, y

    causes = ("data_distribution_change", "unscaled_input", "corrupted_batch")
    modes = (*_BLOWN, _FED, "loss_plateau", "overfitting")
    return Planted(Raw(), Truth("unscaled", modes, causes, at))


@planted("overfit", "mlp_digits", "mlp_cancer", "regression", "transformer", "gru_text")
def overfit(family: Any, steps: int, rng: Any) -> Planted:
    data = family.data()
    few = 48 if family.name in ("gru_text", "transformer") else 40
    pick = torch.from_numpy(rng.permutation(len(data.x))[:few].copy())
    y = data.y[pick].clone()
    if family.name == "mlp_cancer":
        y[: few // 5] = 1 - y[: few // 5]  # clean data of two blobs cannot be overfitted
    small = type(data)(data.x[pick], y, data.val_x, data.val_y)
    truth = Truth("overfit", ("overfitting",), ("insufficient_regularization",), None, False,
                  minimal=False)  # fmt: skip
    rate = family.lr * (15 if family.optimizer == "sgd" else 3)
    settings = {"data": small, "batch": 20, "lr": rate, "schedule": "constant",
                "weight_decay": 0.0}  # fmt: skip
    return Planted(Fault(), truth, settings)


@planted("fp16_overflow")
def fp16_overflow(family: Any, steps: int, rng: Any) -> Planted:
    at = onset_of(rng, steps)

    class Overflow(Fault):
        def gradients(self, run: Run) -> None:
            if run.step >= at:  # an operation whose backward pass overflows in float16
                p = next(p for p in run.network.parameters() if p.grad is not None)
                p.grad.view(-1)[0] = float("inf")

    modes = ("mixed_precision_instability", "inf_detected", "nan_detected", "exploding_gradients")
    causes = ("numerical_overflow", "loss_scale_exhausted")
    return Planted(Overflow(), Truth("fp16_overflow", modes, causes, at), {"scaler": True})


@planted("update_lost", "mlp_digits", "autoencoder", "transformer", "mlp_cancer", "regression")
def update_lost(family: Any, steps: int, rng: Any) -> Planted:
    at = onset_of(rng, steps)

    class Rounded(Fault):
        """Weights are kept in bfloat16 from the change on, and the rate is low by then."""

        def lr(self, run: Run, lr: float) -> float:
            return min(lr, 2e-5) if run.step >= at else lr

        def updated(self, run: Run) -> None:
            if run.step >= at:
                for p in run.network.parameters():
                    p.data.copy_(p.data.to(torch.bfloat16).float())

    modes = ("precision_loss", "frozen_parameters", "loss_plateau")
    causes = ("low_precision_update_loss", "learning_rate_too_low", "parameters_not_updated")
    return Planted(Rounded(), Truth("update_lost", modes, causes, at, False, minimal=False),
                   {"schedule": "constant"})  # fmt: skip


@planted("bad_batch", "mlp_digits", "cnn_digits", "mlp_cancer", "autoencoder", "regression")
def bad_batch(family: Any, steps: int, rng: Any) -> Planted:
    at = onset_of(rng, steps)

    class Once(Fault):
        def batch(self, run: Run, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            if run.step == at:
                x = x * 300.0
                y = x if run.family.name == "autoencoder" else y
            return x, y

    return Planted(Once(), Truth("bad_batch", (*_BLOWN, _FED), ("corrupted_batch",), at))


@planted("state_lost", "mlp_digits", "gru_text", "autoencoder", "transformer", "regression")
def state_lost(family: Any, steps: int, rng: Any) -> Planted:
    at = onset_of(rng, steps)

    class Resumed(Fault):
        """A resume that goes back, forgets the optimizer and warms nothing up."""

        def lr(self, run: Run, lr: float) -> float:
            return lr * 8.0 if at <= run.step < at + 40 else lr

        def updated(self, run: Run) -> None:
            if run.step == at - 1:
                run.optimizer = run.new_optimizer()

        def row(self, run: Run, row: Row) -> Row:
            return row | {"step": row["step"] - 20} if run.step >= at else row

    causes = ("optimizer_state_lost", "learning_rate_schedule_fault", "learning_rate_too_high")
    return Planted(Resumed(), Truth("state_lost", _BLOWN, causes, at - 20))


@planted("collapse", "mlp_digits", "autoencoder", "mlp_cancer", "regression")
def collapse(family: Any, steps: int, rng: Any) -> Planted:
    at = onset_of(rng, steps)

    class Collapse(Fault):
        def updated(self, run: Run) -> None:
            if run.step >= at:  # a penalty that drives a layer to one answer for all
                run.network.layers[1].weight.data.mul_(0.7)
                if run.family.name == "mlp_cancer":
                    run.network.norms[1].weight.data.mul_(0.7)

    modes = ("feature_collapse", "dead_units", "vanishing_gradients", "divergent_training",
             "loss_plateau", "loss_spike", "parameter_runaway")  # fmt: skip
    causes = ("excessive_regularization", "insufficient_regularization", "saturating_activations",
              "dead_activations")  # fmt: skip
    return Planted(Collapse(), Truth("collapse", modes, causes, at, False, "acts.1",
                                     minimal=False))  # fmt: skip


@planted("lr_waves", "mlp_digits", "gru_text", "autoencoder", "cnn_digits", "transformer",
         "regression")  # fmt: skip
def lr_waves(family: Any, steps: int, rng: Any) -> Planted:
    at = onset_of(rng, steps)

    class Waves(Fault):
        def lr(self, run: Run, lr: float) -> float:
            return lr * 60 if run.step >= at and (run.step - at) % 30 < 6 else lr

    causes = ("learning_rate_schedule_fault", "learning_rate_too_high")
    return Planted(Waves(), Truth("lr_waves", _BLOWN, causes, at))


@planted("slow_data")
def slow_data(family: Any, steps: int, rng: Any) -> Planted:
    at, share = onset_of(rng, steps), float(rng.uniform(1.0, 3.0))
    noise = np.random.default_rng(int(rng.integers(1 << 30)))

    class Slow(Fault):
        def row(self, run: Run, row: Row) -> Row:
            compute = 0.1 * noise.lognormal(0, 0.05)
            wait = (0.1 * share if run.step >= at else 0.004) * noise.lognormal(0, 0.3)
            return row | {"step_time": compute + wait, "data_time": wait}

    truth = Truth("slow_data", ("input_starvation", "straggler_effect"),
                  ("data_loader_bottleneck",), at, minimal=False)  # fmt: skip
    return Planted(Slow(), truth)


@planted("memory_leak")
def memory_leak(family: Any, steps: int, rng: Any) -> Planted:
    at = int(0.2 * steps)
    noise = np.random.default_rng(int(rng.integers(1 << 30)))
    rate = 50e9 / (steps - at) * float(rng.uniform(0.7, 1.0))

    class Leak(Fault):
        def row(self, run: Run, row: Row) -> Row:
            used = 20e9 + noise.normal(0, 0.2e9) + max(run.step - at, 0) * rate
            return row | {"memory_allocated": used, "memory_reserved": used * 1.1,
                          "memory_total": 80e9}  # fmt: skip

    truth = Truth("memory_leak", ("oom_precursor",), ("memory_leak",), at, False, minimal=False)
    return Planted(Leak(), truth)


@planted("fragmented")
def fragmented(family: Any, steps: int, rng: Any) -> Planted:
    at = int(0.2 * steps)
    noise = np.random.default_rng(int(rng.integers(1 << 30)))
    rate = 45e9 / (steps - at) * float(rng.uniform(0.7, 1.0))

    class Pieces(Fault):
        def row(self, run: Run, row: Row) -> Row:
            used = 20e9 + noise.normal(0, 0.2e9)
            held = 23e9 + max(run.step - at, 0) * rate
            return row | {"memory_allocated": used, "memory_reserved": held, "memory_total": 80e9}

    truth = Truth("fragmented", ("memory_fragmentation", "oom_precursor"),
                  ("memory_fragmentation",), at, False, minimal=False)  # fmt: skip
    return Planted(Pieces(), truth)


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """Return copies of all parameters, for replicas that go their own way."""
    return {name: copy.deepcopy(p.data) for name, p in network.named_parameters()}
