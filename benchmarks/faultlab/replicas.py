"""Data-parallel training of four replicas, in one process, that can fall out of step."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from families import Family
from faults import Planted, Truth
from trainer import Row, make_optimizer, shape

from ml_systems_debugger.kernels import digest

REPLICAS = 4
KINDS = ("missed_reduction", "flipped_bit", "other_start", "slow_worker", "lost_worker",
         "silent_worker")  # fmt: skip
HEALTHY = ("replicas_even", "replicas_uneven")

_SYNC = ("gradient_desynchronization", "parameter_desynchronization")


def truth_of(kind: str, family: Family, steps: int, rng: Any) -> Truth:
    """Return what a kind of fault is called, with a place drawn."""
    at, replica = (
        int(rng.integers(int(0.4 * steps), int(0.65 * steps))),
        int(rng.integers(REPLICAS)),
    )
    name = {"cnn_digits": "conv2.weight", "transformer": "blocks.1.up.weight"}.get(
        family.name, "layers.1.weight"
    )
    return {
        "missed_reduction": Truth(kind, _SYNC, ("missed_gradient_synchronization",), at,
                                  replica=replica, minimal=False),
        "flipped_bit": Truth(kind, _SYNC, ("replica_data_corruption",), at, layer=name,
                             replica=replica, minimal=False),
        "other_start": Truth(kind, _SYNC, ("replica_initialization_mismatch",), 0,
                             replica=replica, minimal=False),
        "slow_worker": Truth(kind, ("straggler_effect",), ("slow_worker",), at,
                             replica=replica, minimal=False),
        "lost_worker": Truth(kind, ("partial_worker_failure", "gradient_desynchronization"),
                             ("lost_worker",), at, replica=replica, minimal=False),
        "silent_worker": Truth(kind, ("partial_worker_failure", "gradient_desynchronization"),
                               ("lost_worker", "replica_data_corruption", "slow_worker"), at,
                               replica=replica, minimal=False),
    }.get(kind, Truth(f"healthy:{kind}"))  # fmt: skip


class Replicas:
    """Trains, and returns one row per replica and step."""

    def __init__(self, family: Family, kind: str, truth: Truth, seed: int, steps: int) -> None:
        self.family, self.kind, self.truth = family, kind, truth
        self.seed, self.steps = seed, steps
        self.rng = np.random.default_rng(seed)

    def train(self) -> list[Row]:
        torch.manual_seed(self.seed)
        first = self.family.network()
        networks = [self.family.network() for _ in range(REPLICAS)]
        for at, network in enumerate(networks):
            if self.kind != "other_start" or at != self.truth.replica:
                network.load_state_dict(first.state_dict())
        optimizers = [
            make_optimizer(
                self.family.optimizer, n.parameters(), self.family.lr, self.family.weight_decay
            )
            for n in networks
        ]
        data, rows = self.family.data(), []
        pace = self.rng.uniform(0.97, 1.03, REPLICAS)
        if self.kind == "replicas_uneven":
            pace = self.rng.uniform(0.8, 1.25, REPLICAS)  # machines of two kinds
        held: dict[int, Row] = {}
        for step in range(self.steps):
            losses = []
            for network in networks:
                pick = torch.from_numpy(self.rng.integers(0, len(data.x), self.family.batch))
                network.zero_grad()
                loss = self.family.loss(network(data.x[pick]), data.y[pick])
                loss.backward()
                losses.append(float(loss.detach()))
            self._reduce(networks, step)
            rate = self.family.lr * shape(self.family.schedule, step, self.steps, self.family)
            self._update(networks, optimizers, rate, step)
            for at, network in enumerate(networks):
                row = self._row(step, at, network, losses[at], rate, pace)
                if row is not None:
                    if self._gone(at, step):
                        row = held[at] | {"step": step}
                    held[at] = row
                    rows.append(row)
        return rows

    def _hit(self, at: int, step: int) -> bool:
        return (
            at == self.truth.replica and self.truth.onset is not None and step >= self.truth.onset
        )

    def _gone(self, at: int, step: int) -> bool:
        return self.kind == "silent_worker" and self._hit(at, step)

    def _reduce(self, networks: list[Any], step: int) -> None:
        for group in zip(*(n.parameters() for n in networks), strict=True):
            mean = torch.stack([p.grad for p in group]).mean(0)
            for at, p in enumerate(group):
                if not (self.kind == "missed_reduction" and self._hit(at, step)):
                    p.grad = mean.clone()

    def _update(self, networks: list[Any], optimizers: list[Any], rate: float, step: int) -> None:
        for at, (network, optimizer) in enumerate(zip(networks, optimizers, strict=True)):
            if self.family.clip is not None:
                torch.nn.utils.clip_grad_norm_(network.parameters(), self.family.clip)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            if self.kind == "flipped_bit" and at == self.truth.replica and step == self.truth.onset:
                bits = dict(network.named_parameters())[self.truth.layer].data.view(torch.int32)
                bits.view(-1)[int(self.rng.integers(bits.numel()))] ^= 1 << 20

    def _row(
        self, step: int, at: int, network: Any, loss: float, rate: float, pace: Any
    ) -> Row | None:
        if self.kind == "lost_worker" and self._hit(at, step):
            return None
        seconds = 0.1 * pace[at] * self.rng.lognormal(0, 0.04)
        if step % 100 == 99:
            seconds += 1.0  # a checkpoint: everybody waits
        if self.kind == "slow_worker" and self._hit(at, step):
            seconds *= 1.6
        row: Row = {
            "step": step, "replica_id": at, "loss": loss, "lr": rate, "step_time": seconds,
            "grad_norm": float(torch.stack([p.grad.norm() for p in network.parameters()]).norm()),
        }  # fmt: skip
        for name, p in network.named_parameters():
            if p.ndim >= 2:
                row[f"grad_norm/{name}"] = float(p.grad.norm())
                row[f"param_digest/{name}"] = digest(p.detach().numpy())
        return row


def make(kind: str, family: Family, seed: int) -> tuple[Planted, list[Row]]:
    """Train one job of four replicas."""
    steps = min(family.steps, 300)
    truth = truth_of(kind, family, steps, np.random.default_rng(seed))
    rows = Replicas(family, kind, truth, seed, steps).train()
    return Planted(None, truth), rows  # type: ignore[arg-type]
