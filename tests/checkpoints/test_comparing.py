from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from planting import FLOATS, name_of, raw_bytes

from ml_systems_debugger.checkpoints import diff
from ml_systems_debugger.checkpoints._values import as_float64
from ml_systems_debugger.checkpoints.dtypes import DTYPES

save_file = pytest.importorskip("safetensors.torch").save_file


def pair() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    before = {f"layers.{i}.w": torch.randn(300, 400) for i in range(8)}
    after = {n: t + 0.01 * torch.randn_like(t) for n, t in before.items()}
    return before, after


def test_numbers_of_a_change(tmp_path: Path) -> None:
    before, after = pair()
    before["big"], after["big"] = torch.randn(1500, 1000), torch.randn(1500, 1000)
    save_file(before, tmp_path / "a.safetensors")
    torch.save(after, tmp_path / "b.pt")  # another format
    result = diff(tmp_path / "a.safetensors", tmp_path / "b.pt")
    assert result.status == "different"
    assert result.changes[0].name == "big"
    for change in result.changes:
        a, b = before[change.name].double(), after[change.name].double()
        assert change.max_delta == pytest.approx(float((b - a).abs().max()), rel=1e-12)
        assert change.relative == pytest.approx(float((b - a).norm() / a.norm()), rel=1e-9)
        cosine = float(torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), 0))
        assert change.cosine == pytest.approx(cosine, abs=1e-9)
        assert not change.equal


def test_equal_checkpoints(tmp_path: Path) -> None:
    before, _ = pair()
    before["layers.1.w"][3, 3] = float("nan")
    save_file(before, tmp_path / "a.safetensors")
    torch.save(before, tmp_path / "b.pt")
    result = diff(tmp_path / "a.safetensors", tmp_path / "b.pt")
    assert result.status == "equal"
    assert all(c.equal and c.digest_a == c.digest_b for c in result.changes)
    assert result.findings == ()


def test_frozen_exploded_and_broken_layers_stand_out(tmp_path: Path) -> None:
    before, after = pair()
    after["layers.2.w"] = before["layers.2.w"].clone()
    after["layers.5.w"] = after["layers.5.w"] * 500
    after["layers.6.w"][1, 2] = float("inf")
    save_file(before, tmp_path / "a.safetensors")
    save_file(after, tmp_path / "b.safetensors")
    result = diff(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    found = {(f.code, f.tensor, str(f.severity)) for f in result.findings}
    assert found == {
        ("frozen", "layers.2.w", "medium"), ("exploded", "layers.5.w", "high"),
        ("newly_not_finite", "layers.6.w", "critical"),
    }  # fmt: skip
    assert result.changes[0].name == "layers.5.w"
    assert result.changes[-1].name == "layers.2.w"


def test_missing_added_reshaped_and_retyped(tmp_path: Path) -> None:
    before = {"gone": torch.ones(2), "shape": torch.ones(2, 3), "type": torch.ones(4)}
    after = {"new": torch.ones(2), "shape": torch.ones(3, 2), "type": torch.ones(4).bfloat16()}
    save_file(before, tmp_path / "a.safetensors")
    save_file(after, tmp_path / "b.safetensors")
    result = diff(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert (result.missing, result.added) == (("gone",), ("new",))
    assert result.reshaped == (("shape", (2, 3), (3, 2)),)
    assert result.retyped == (("type", "float32", "bfloat16"),)
    (change,) = result.changes
    assert change.equal
    assert change.digest_a != change.digest_b


def test_from_zeros_and_to_zeros(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(9), "v": torch.ones(9)}, tmp_path / "a.safetensors")
    save_file({"w": torch.ones(9), "v": torch.zeros(9)}, tmp_path / "b.safetensors")
    changes = {
        c.name: c for c in diff(tmp_path / "a.safetensors", tmp_path / "b.safetensors").changes
    }
    assert math.isinf(changes["w"].relative)
    assert math.isnan(changes["w"].cosine)
    assert changes["v"].relative == 1.0


@pytest.mark.parametrize("dtype", FLOATS[:-1])
def test_every_code_of_a_narrow_type_has_torchs_value(dtype: torch.dtype) -> None:
    width = dtype.itemsize
    codes = np.arange(256, dtype=np.uint8) if width == 1 else np.arange(0, 65536, 7, dtype="u2")
    raw = torch.from_numpy(np.resize(codes.view(np.uint8), 8192).copy())
    values = raw.view(dtype)
    ours = as_float64(np.frombuffer(raw_bytes(values), np.uint8), DTYPES[name_of(dtype)])
    np.testing.assert_array_equal(ours, values.double().numpy())
