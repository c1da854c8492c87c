"""A training loop that logs what a careful engineer would, with places for faults to get in."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from families import Data, Family
from torch import nn

Tensor = torch.Tensor
Row = dict[str, Any]


class Fault:
    """Does nothing; a fault overrides the places where it gets in."""

    def start(self, run: Run) -> None:
        """Change what is about to be trained."""

    def batch(self, run: Run, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Change the examples of a step."""
        return x, y

    def loss(self, run: Run, loss: Tensor, out: Tensor) -> Tensor:
        """Change the loss before the backward pass."""
        return loss

    def gradients(self, run: Run) -> None:
        """Change gradients before they are measured."""

    def lr(self, run: Run, lr: float) -> float:
        """Change the learning rate of a step."""
        return lr

    def updated(self, run: Run) -> None:
        """Change parameters after the optimizer's step."""

    def row(self, run: Run, row: Row) -> Row:
        """Change what is logged."""
        return row


@dataclass
class Run:
    """One run in the making."""

    family: Family
    seed: int
    fault: Fault
    steps: int
    batch: int
    schedule: str
    lr: float
    dropout: float = 0.0
    accumulate: int = 1
    shuffle: bool = True
    data: Data | None = None
    zero_grad: bool = True
    frozen: tuple[str, ...] = ()
    scaler: bool = False
    guard: bool = False  # leaves out steps whose gradients are not finite
    clip: float | None = None
    weight_decay: float = 0.0
    step: int = 0
    scale: float = 2.0**15
    good: int = 0
    pace: float = 0.1  # seconds a step
    rows: list[Row] = field(default_factory=list)
    network: Any = None
    optimizer: Any = None
    rng: Any = None
    activations: dict[str, tuple[float, float]] = field(default_factory=dict)

    def train(self) -> list[Row]:
        """Train and return the rows of the log."""
        torch.manual_seed(self.seed)
        self.rng = np.random.default_rng(self.seed)
        data = self.data or self.family.data()
        self.network = self.family.network()
        self.optimizer = self.new_optimizer()
        self.fault.start(self)
        for name, parameter in self.network.named_parameters():
            if any(name.startswith(f) for f in self.frozen):
                parameter.requires_grad_(False)
        self._watch()
        order = np.arange(len(data.x))
        at = len(order)
        for step in range(self.steps):
            self.step = step
            self.optimizer.zero_grad() if self.zero_grad or self.step == 0 else None
            total = 0.0
            inputs: list[Tensor] = []
            for _ in range(self.accumulate):
                if at + self.batch > len(order):
                    at = 0
                    if self.shuffle:
                        self.rng.shuffle(order)
                pick = torch.from_numpy(order[at : at + self.batch].copy())
                at += self.batch
                x, y = self.fault.batch(self, data.x[pick], data.y[pick])
                inputs.append(x)
                if self.dropout and x.is_floating_point():
                    x = nn.functional.dropout(x, self.dropout)
                out = self.network(x)
                loss = self.fault.loss(self, self.family.loss(out, y), out)
                (loss / self.accumulate).backward()
                total += float(loss.detach()) / self.accumulate
            self._update(total, data, inputs)
        return self.rows

    def new_optimizer(self) -> torch.optim.Optimizer:
        """Return an optimizer that knows nothing yet, for the network as it is."""
        kind, parameters = self.family.optimizer, self.network.parameters()
        return make_optimizer(kind, parameters, self.lr, self.weight_decay)

    def _update(self, loss: float, data: Data, inputs: list[Tensor]) -> None:
        self.fault.gradients(self)
        row: Row = {"step": self.step, "loss": loss}
        if inputs[0].is_floating_point():  # codes of characters have no scale
            fed = torch.cat(inputs)
            row["input_std"], row["input_absmax"] = float(fed.std()), float(fed.abs().max())
        weights = [(n, p) for n, p in self.network.named_parameters() if p.ndim >= 2]
        norms = {n: float(p.grad.norm()) for n, p in weights if p.grad is not None}
        every = [float(p.grad.norm()) for p in self.network.parameters() if p.grad is not None]
        norm = math.sqrt(sum(v * v for v in every)) if all(map(math.isfinite, every)) else math.nan
        if math.isnan(norm) and not any(map(math.isnan, every)):
            norm = math.inf
        row["grad_norm"] = norm
        if self.clip is not None and math.isfinite(norm) and norm > self.clip:
            for p in self.network.parameters():
                if p.grad is not None:
                    p.grad.mul_(self.clip / norm)
        rate = self.fault.lr(
            self, self.lr * shape(self.schedule, self.step, self.steps, self.family)
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        row["lr"] = rate
        look = self.step % 5 == 0
        before = {n: p.detach().clone() for n, p in weights} if look else {}
        skipped = self._step(norm)
        self.fault.updated(self)
        if self.scaler:
            row["loss_scale"], row["skipped_step"] = self.scale, float(skipped)
        for name, value in norms.items():
            row[f"grad_norm/{name}"] = value
        if look:
            for name, p in weights:
                size = float(p.detach().norm())
                row[f"param_norm/{name}"] = size
                if p.requires_grad:
                    moved = float((p.detach() - before[name]).norm())
                    row[f"update_ratio/{name}"] = moved / size if size else 0.0
                    there = None if p.grad is None else p.grad != 0
                    if there is not None and bool(there.any()):
                        same = (p.detach() == before[name])[there]
                        row[f"update_zero_fraction/{name}"] = float(same.float().mean())
            for name, (zeros, std) in self.activations.items():
                row[f"activation_zero_fraction/{name}"] = zeros
                row[f"activation_std/{name}"] = std
        if self.step % 25 == 24:
            row.update(self._evaluate(data))
        # The laboratory's machine is shared: real times would hold faults that nobody planted.
        row["step_time"] = float(self.pace * self.rng.lognormal(0, 0.05))
        self.rows.append(self.fault.row(self, row))

    def _step(self, norm: float) -> bool:
        if self.scaler:
            # As dynamic loss scaling does: float16 gradients overflow at 65,504.
            biggest = max(
                (
                    float(p.grad.abs().max())
                    for p in self.network.parameters()
                    if p.grad is not None
                ),
                default=0.0,
            )
            if not math.isfinite(norm) or biggest * self.scale > 65504:
                self.scale, self.good = max(self.scale / 2, 2.0**-14), 0
                return True
            self.good += 1
            if self.good == 200:
                self.scale, self.good = self.scale * 2, 0
        if self.guard and not math.isfinite(norm):
            return True
        self.optimizer.step()
        return False

    def _evaluate(self, data: Data) -> Row:
        self.network.eval()
        with torch.no_grad():
            out = self.network(data.val_x[:256])
            y = data.val_y[:256]
            found: Row = {"val_loss": float(self.family.loss(out, y))}
            if self.family.accuracy:
                found["val_accuracy"] = float((out.argmax(-1) == y).float().mean())
        self.network.train()
        return found

    def _watch(self) -> None:
        def hook(name: str) -> Callable[..., None]:
            def look(_: nn.Module, __: Any, out: Tensor) -> None:
                if self.network.training and self.step % 5 == 0:
                    flat = out.detach().reshape(-1, out.shape[-1] if out.ndim < 4 else out.shape[1])
                    if out.ndim == 4:
                        flat = out.detach().transpose(0, 1).flatten(1).T
                    zeros = float((out.detach() == 0).float().mean())
                    self.activations[name] = (zeros, float(flat.std(0).mean()))

            return look

        for name, module in self.network.named_modules():
            if isinstance(module, (nn.ReLU, nn.Tanh, nn.GELU, nn.SiLU, nn.Sigmoid, nn.GRU)):
                if isinstance(module, nn.GRU):
                    continue
                module.register_forward_hook(hook(name))


def make_optimizer(kind: str, parameters: Any, lr: float, decay: float) -> torch.optim.Optimizer:
    if kind == "sgd":
        return torch.optim.SGD(parameters, lr, momentum=0.9, weight_decay=decay)
    if kind == "adamw":
        return torch.optim.AdamW(parameters, lr)  # with its own default of 0.01
    kinds = {"adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop}
    return kinds[kind](parameters, lr, weight_decay=decay)


def shape(schedule: str, step: int, steps: int, family: Family) -> float:
    """Return the learning rate's factor at a step."""
    if step < family.warmup:
        return (step + 1) / family.warmup
    if schedule == "cosine":
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps))
    if schedule == "steps":
        return 0.2 ** (3 * step // steps)
    if schedule == "cyclic":
        return 0.1 + 0.9 * abs(1 - 2 * ((step / 100) % 1))
    if schedule == "restarts":
        return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * ((step / 150) % 1)))
    return 1.0
