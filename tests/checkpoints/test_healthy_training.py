"""Small networks of several kinds, really trained: nothing at high or above, at every stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from ml_systems_debugger.checkpoints import Options, diff, scan


class Residual(nn.Module):
    """Convolutions with batch normalisation, a depthwise one, a gate that begins at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(16), nn.SiLU(), nn.Conv2d(16, 16, 3, padding=1, groups=16),
                          nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 1))
            for _ in range(4)
        )  # fmt: skip
        self.gates = nn.Parameter(torch.zeros(4))
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for gate, block in zip(self.gates, self.blocks, strict=True):
            x = x + (0.5 + gate) * block(x)
        return self.head(x.mean((2, 3)))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(30, 16, padding_idx=0)
        self.cell = nn.GRU(16, 32, num_layers=3, batch_first=True)
        self.head = nn.Linear(32, 30)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.cell(self.embed(x))[0])


class Adapted(nn.Module):
    """Frozen layers with low-rank adapters, whose second matrix begins at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.ModuleList(nn.Linear(32, 32) for _ in range(6))
        self.base.requires_grad_(False)
        self.lora_a = nn.ParameterList(torch.randn(4, 32) * 0.2 for _ in range(6))
        self.lora_b = nn.ParameterList(torch.zeros(32, 4) for _ in range(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer, a, b in zip(self.base, self.lora_a, self.lora_b, strict=True):
            x = x + torch.tanh(layer(x) + x @ a.T @ b.T)
        return x


class Vision(nn.Module):
    """A transformer over patches; its class token and positions begin at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 32, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, 32))
        self.position = nn.Parameter(torch.zeros(1, 5, 32))
        block = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, 4, enable_nested_tensor=False)
        self.head = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position
        return self.head(self.blocks(x)[:, 0])


def images() -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.randint(0, 5, (16,))
    return torch.randn(16, 3, 8, 8) + labels[:, None, None, None] * 0.5, labels


def tokens() -> tuple[torch.Tensor, torch.Tensor]:
    start = torch.randint(1, 30, (8, 1))
    walk = (start + torch.arange(12)) % 29 + 1
    return walk[:, :-1], walk[:, 1:]


def vectors() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(32, 32)
    return x, x.roll(1, 1)


def classes(out: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(out.reshape(-1, out.shape[-1]), labels.reshape(-1))


TRAININGS: dict[str, tuple[Callable[..., nn.Module], Callable[..., object], ...]] = {
    "residual, SGD": (Residual, lambda p: torch.optim.SGD(p, 0.05, momentum=0.9), images, classes),
    "recurrent, RMSprop": (Recurrent, lambda p: torch.optim.RMSprop(p, 1e-3), tokens, classes),
    "adapters, AdamW": (Adapted, lambda p: torch.optim.AdamW(p, 1e-2), vectors,
                        nn.functional.mse_loss),
    "vision, Adam amsgrad": (Vision, lambda p: torch.optim.Adam(p, 1e-3, amsgrad=True), images,
                             classes),
    "residual, Adagrad": (Residual, lambda p: torch.optim.Adagrad(p, 0.01), images, classes),
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Layers this small take longer to share out than to compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", TRAININGS)
def test_nothing_severe_at_any_stage(tmp_path: Path, name: str) -> None:
    build, optimize, data, loss_of = TRAININGS[name]
    torch.manual_seed(0)
    model = build()
    optimizer = optimize([p for p in model.parameters() if p.requires_grad])
    losses = []
    for step in range(61):
        if step in (0, 20, 60):
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()},
                       tmp_path / f"{step}.pt")  # fmt: skip
        x, y = data()
        loss = loss_of(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < sum(losses[:5])  # it did learn
    for step in (0, 20, 60):
        report = scan(tmp_path / f"{step}.pt", options=Options(ranges=True))
        assert not report.unread
        severe = [(f.code, f.tensor, f.message) for f in report.findings if f.severity >= "high"]
        assert severe == []
        assert "never_trained" not in {f.code for f in report.findings}
    change = diff(tmp_path / "20.pt", tmp_path / "60.pt")
    assert [f.message for f in change.findings if f.severity >= "high"] == []
