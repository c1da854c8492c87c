"""Every code of a finding is raised by what it says, and by nothing else beside it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from ml_systems_debugger import checkpoints
from ml_systems_debugger.checkpoints import CODES, CheckpointFinding, diff, scan
from ml_systems_debugger.checkpoints._distributed_metadata import Chunk
from ml_systems_debugger.checkpoints.distributed import DistributedFormat

SOURCES = Path(checkpoints.__file__).parent
save_file = pytest.importorskip("safetensors.torch").save_file


def codes(path: Path) -> set[tuple[str, str | None]]:
    return {(f.code, f.tensor) for f in scan(path).findings}


def test_every_code_is_raised_somewhere_and_tested() -> None:
    passive = {"finding.py", "explanations.py"}
    sources = "".join(p.read_text() for p in SOURCES.glob("*.py") if p.name not in passive)
    tests = "".join(p.read_text() for p in Path(__file__).parent.glob("test_*.py"))
    for code in CODES:
        assert re.search(rf'["\']{code}["\']', sources), f"{code} is never raised"
        assert re.search(rf'["\']{code}["\']', tests), f"{code} is not tested"


def test_one_value_only(tmp_path: Path) -> None:
    rng = torch.Generator().manual_seed(0)
    state = {
        "filled": torch.full((20, 30), 0.5), "norm": torch.ones(600),
        "fine": torch.randn(20, 30, generator=rng), "ids": torch.ones(20, 30, dtype=torch.int64),
    }  # fmt: skip
    save_file(state, tmp_path / "m.safetensors")
    assert codes(tmp_path / "m.safetensors") == {("constant", "filled")}


def test_equal_byte_for_byte(tmp_path: Path) -> None:
    weights = torch.randn(40, 50, generator=torch.Generator().manual_seed(0))
    save_file({"a": weights, "b": weights.clone(), "c": weights + 1, "n": torch.ones(2000)},
              tmp_path / "m.safetensors")  # fmt: skip
    (found,) = scan(tmp_path / "m.safetensors").findings
    assert (found.code, found.severity) == ("duplicate", "low")
    assert found.evidence["tensors"] == ("a", "b")


def test_a_view_that_repeats_its_memory(tmp_path: Path) -> None:
    torch.save({"wide": torch.randn(5, 1).expand(5, 4), "fine": torch.randn(5, 30),
                "turned": torch.randn(5, 30).t()}, tmp_path / "m.pt")  # fmt: skip
    (found,) = [f for f in scan(tmp_path / "m.pt").findings if f.code == "expanded_view"]
    assert found.tensor == "wide"
    assert found.evidence["repeats"] == 4


def test_a_name_in_two_shards(tmp_path: Path) -> None:
    for part in "12":
        save_file({"w": torch.randn(3), part: torch.randn(3)}, tmp_path / f"{part}.safetensors")
    found = {f.code: f for f in scan(tmp_path).findings}
    assert found["duplicate_name"].tensor == "w"
    assert found["duplicate_name"].severity == "high"


def test_control_characters_in_a_name(tmp_path: Path) -> None:
    save_file({"w\x1b[2J": torch.randn(3)}, tmp_path / "m.safetensors")
    (found,) = scan(tmp_path / "m.safetensors").findings
    assert (found.code, found.severity) == ("strange_name", "medium")
    assert "\x1b" not in found.message


def test_pieces_that_leave_gaps(tmp_path: Path) -> None:
    reader = DistributedFormat(tmp_path)
    whole = [Chunk((0, 0), (2, 3)), Chunk((2, 0), (2, 3))]
    assert reader._covered("w", (4, 3), whole)
    assert not reader.findings
    assert not reader._covered("w", (4, 3), whole[:1])
    (found,) = reader.findings
    assert (found.code, found.severity) == ("incomplete_tensor", "critical")
    assert (found.evidence["held"], found.evidence["size"]) == (6, 12)
    assert reader.unread


def trained(steps: int) -> dict[str, object]:
    """A network of which one layer is cut off from the loss, and its optimizer."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(*[torch.nn.Linear(8, 8) for _ in range(4)])
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(steps):
        optimizer.zero_grad()
        x = torch.randn(16, 8)
        for layer in (0, 1, 3):
            x = torch.tanh(model[layer](x))
        (x.square().sum() + 0 * model[2].weight.sum()).backward()
        optimizer.step()
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}


def test_a_parameter_that_never_got_a_gradient(tmp_path: Path) -> None:
    torch.save(trained(12), tmp_path / "m.pt")
    found = [f for f in scan(tmp_path / "m.pt").findings if f.code == "never_trained"]
    assert [f.tensor for f in found] == ["optimizer.state.4.exp_avg_sq"]
    assert found[0].severity == "medium"
    assert found[0].evidence["steps"] == 12
    torch.save(trained(3), tmp_path / "early.pt")
    assert "never_trained" not in {f.code for f in scan(tmp_path / "early.pt").findings}
    fresh = {f"state.{n}.exp_avg_sq": torch.zeros(4) for n in range(5)}
    torch.save(fresh, tmp_path / "fresh.pt")
    assert scan(tmp_path / "fresh.pt").findings == ()


def test_names_shapes_and_types_that_changed(tmp_path: Path) -> None:
    a = {"w": torch.randn(3, 4), "gone": torch.randn(3), "t": torch.randn(4)}
    b = {"w": torch.randn(4, 3), "new": torch.randn(3), "t": a["t"].half()}
    save_file(a, tmp_path / "a.safetensors")
    save_file(b, tmp_path / "b.safetensors")
    found = {f.code for f in diff(tmp_path / "a.safetensors", tmp_path / "b.safetensors").findings}
    assert {"missing", "added", "reshaped", "retyped"} <= found


@pytest.mark.parametrize("size", [8, 64, 3_000_000])
def test_saturation_of_every_narrow_type(tmp_path: Path, size: int) -> None:
    rng = np.random.default_rng(0)
    codes_of = rng.integers(0, 256, size, np.uint8)
    expected = {}
    state = {}
    for kind in (torch.float8_e4m3fn, torch.float8_e5m2, torch.int8):
        name = str(kind).removeprefix("torch.")
        state[name] = torch.from_numpy(codes_of.copy()).view(kind)
        wide = state[name].to(torch.float64).numpy()
        limit = 127.0 if kind is torch.int8 else torch.finfo(kind).max
        expected[name] = int((np.abs(wide[np.isfinite(wide)]) >= limit).sum())
    state["half"] = torch.where(torch.arange(size) % 3 == 0, 65504.0, 1.0).half()
    expected["half"] = -(-size // 3)
    state["plain"] = torch.randn(size)
    save_file(state, tmp_path / "m.safetensors")
    records = {t.name: t for t in scan(tmp_path / "m.safetensors").tensors}
    for name, count in expected.items():
        assert records[name].saturated == count, name
        assert records[name].to_dict()["saturated"] == count
    assert records["plain"].saturated is None
    assert "saturated" not in records["plain"].to_dict()


@pytest.mark.parametrize("size", [6, 4_200_000])
def test_saturation_of_4_bit_floats(tmp_path: Path, size: int) -> None:
    pairs = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    text = f'{{"w":{{"dtype":"F4","shape":[{2 * size}],"data_offsets":[0,{size}]}}}}'.encode()
    (tmp_path / "m.safetensors").write_bytes(
        len(text).to_bytes(8, "little") + text + pairs.tobytes()
    )
    (record,) = scan(tmp_path / "m.safetensors").tensors
    low, high = pairs & 7 == 7, pairs >> 4 & 7 == 7
    assert record.saturated == low.sum() + high.sum()


def test_a_finding_keeps_its_code_and_tensor() -> None:
    finding = CheckpointFinding.of("nan", "high", "m", "w", count=1)
    assert CheckpointFinding.from_dict(finding.to_dict()) == finding
