"""What is sound raises nothing at high or above: fresh networks, trained ones, their optimizers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from ml_systems_debugger.checkpoints import CheckpointReport, scan

save_file = pytest.importorskip("safetensors.torch").save_file


class Transformer(nn.Module):
    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(200, width, padding_idx=0)
        block = nn.TransformerEncoderLayer(width, 4, 2 * width, batch_first=True)
        self.layers = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 200, bias=False)
        self.head.weight = self.embed.weight
        mask = torch.full((16, 16), float("-inf")).triu(1)
        self.register_buffer("causal_mask", mask)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.layers(
            self.embed(tokens), mask=self.causal_mask[: tokens.shape[1], : tokens.shape[1]]
        )
        return self.head(self.norm(x))


def convolutional() -> nn.Module:
    blocks: list[nn.Module] = []
    width = 3
    for more in (8, 16, 32, 64):
        blocks += [nn.Conv2d(width, more, 3), nn.BatchNorm2d(more), nn.ReLU()]
        width = more
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


FRESH = {
    "transformer": lambda: Transformer(6, 32),
    "convolutional": convolutional,
    "recurrent": lambda: nn.LSTM(16, 32, num_layers=4, bidirectional=True),
    "perceptron": lambda: nn.Sequential(*[nn.Linear(64, 64) for _ in range(8)]),
    "attention": lambda: nn.MultiheadAttention(64, 8),
    "norms": lambda: nn.Sequential(*[nn.GroupNorm(4, 64) for _ in range(8)]),
}


def severe(report: CheckpointReport) -> list[tuple[str, str | None, str]]:
    assert not report.unread
    return [(f.code, f.tensor, f.message) for f in report.findings if f.severity >= "high"]


@pytest.mark.parametrize("name", FRESH)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_freshly_initialised_networks(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    torch.save(FRESH[name]().to(dtype).state_dict(), tmp_path / "m.pt")
    assert severe(scan(tmp_path / "m.pt")) == []


def trained(steps: int = 60) -> tuple[Transformer, torch.optim.Optimizer]:
    torch.manual_seed(1)
    model = Transformer(6, 32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        tokens = torch.randint(1, 200, (8, 1)) + torch.arange(13)
        tokens = tokens % 199 + 1
        logits = model(tokens[:, :-1])
        loss = nn.functional.cross_entropy(logits.reshape(-1, 200), tokens[:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model, optimizer


def test_a_trained_network_with_its_optimizer(tmp_path: Path) -> None:
    model, optimizer = trained()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": 60},
               tmp_path / "m.pt")  # fmt: skip
    report = scan(tmp_path / "m.pt")
    assert severe(report) == []
    codes = {f.code: f for f in report.findings}
    assert codes["shared_storage"].severity == "low"
    assert codes["inf"].severity == "low"  # the causal mask


FAULTS = {
    "a dead layer": ("layers.layers.3.linear1.weight", lambda t: t.zero_(), "outlier"),
    "an exploded layer": ("layers.layers.3.linear1.weight", lambda t: t.mul_(1e4), "outlier"),
    "a NaN": ("layers.layers.2.norm1.bias", lambda t: t[5].fill_(float("nan")), "nan"),
    "an Inf": ("norm.weight", lambda t: t[5].fill_(float("inf")), "inf"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_same_network_with_a_fault(tmp_path: Path, fault: str) -> None:
    name, plant, code = FAULTS[fault]
    state = {k: v.clone() for k, v in trained(5)[0].state_dict().items()}
    plant(state[name])
    save_file(state, tmp_path / "m.safetensors")
    assert {(c, n) for c, n, _ in severe(scan(tmp_path / "m.safetensors"))} == {(code, name)}


def test_everything_zero(tmp_path: Path) -> None:
    state = {k: torch.zeros_like(v) for k, v in Transformer(4, 32).state_dict().items()}
    save_file(state, tmp_path / "m.safetensors")
    assert [c for c, _, _ in severe(scan(tmp_path / "m.safetensors"))] == ["all_zero"]


def test_dead_rows_and_columns_across_blocks(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weight = torch.randn(3000, 1000)  # three units, whose borders cut rows
    weight[[7, 1048, 1049, 2998]] = 0
    weight[:, [3, 999]] = 0
    sparse = torch.randn(2000, 1500)
    sparse[torch.rand(2000, 1500) < 0.9] = 0  # pruned, and no line wholly dead
    wide = torch.randn(10, 1_500_000)
    wide[4] = 0
    save_file({"w": weight, "sparse": sparse, "wide": wide}, tmp_path / "m.safetensors")
    found = {(f.code, f.tensor): f.evidence for f in scan(tmp_path / "m.safetensors").findings}
    assert set(found) == {("dead_rows", "w"), ("dead_columns", "w"), ("dead_rows", "wide")}
    assert set(found["dead_rows", "w"]["first"]) == {7, 1048, 1049, 2998}
    assert found["dead_rows", "w"]["rows"] == 4
    assert found["dead_columns", "w"]["first"] == (3, 999)
    assert found["dead_rows", "wide"]["first"] == (4,)


def test_saturated_and_subnormal_values(tmp_path: Path) -> None:
    full = torch.full((64, 64), 448.0)
    full[::2] = torch.randn(32, 64)
    tiny = torch.randn(64, 64) * 1e-7
    save_file({"full": full.to(torch.float8_e4m3fn), "tiny": tiny.half(),
               "wide": torch.randn(64, 64) * 1e5}, tmp_path / "m.safetensors")  # fmt: skip
    report = scan(tmp_path / "m.safetensors")
    found = {(f.code, f.tensor): f for f in report.findings}
    assert found["saturated", "full"].evidence["saturated"] == 32 * 64
    assert found["range", "tiny"].severity == "medium"
    assert found["range", "wide"].severity == "low"
