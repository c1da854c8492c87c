"""Folders in DeepSpeed's layout, written by torch.save as DeepSpeed's engine writes them."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from ml_systems_debugger.checkpoints import scan

SHAPES = [
    OrderedDict({"a.weight": torch.Size([7, 5]), "a.bias": torch.Size([7])}),
    OrderedDict({"b.weight": torch.Size([3, 11]), "b.scale": torch.Size([])}),
]
WORLD = 3


def values() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    out = {n: torch.randn(s) for group in SHAPES for n, s in group.items()}
    out["b.weight"][2, 4] = float("nan")
    out["a.weight"][4, 0] = float("inf")
    return out


def write(root: Path, stage: int) -> Path:
    folder = root / "global_step10"
    folder.mkdir()
    (root / "latest").write_text("global_step10")
    found = values()
    model = {"module": {n: t.bfloat16() for n, t in found.items()} if stage < 3 else None,
             "param_shapes": SHAPES, "dp_world_size": WORLD, "global_steps": 10}  # fmt: skip
    name = "mp_rank_00" if stage < 3 else "zero_pp_rank_0_mp_rank_00"
    torch.save(model, folder / f"{name}_model_states.pt")
    for rank in range(WORLD):
        state: dict[str, object] = {"zero_stage": stage, "partition_count": [WORLD] * len(SHAPES)}
        parts = []
        for group in SHAPES:
            if stage < 3:
                flat = torch.cat([found[n].reshape(-1) for n in group])
                size = -(-len(flat) // WORLD)
                flat = torch.nn.functional.pad(flat, (0, size * WORLD - len(flat)))
                parts.append(flat[rank * size : (rank + 1) * size].clone())
            else:
                for name in group:
                    flat = found[name].reshape(-1)
                    size = -(-len(flat) // WORLD)
                    flat = torch.nn.functional.pad(flat, (0, size * WORLD - len(flat)))
                    parts.append(flat[rank * size : (rank + 1) * size])
        key = "single_partition_of_fp32_groups" if stage < 3 else "fp32_flat_groups"
        state[key] = parts if stage < 3 else [torch.cat(parts)]
        torch.save(
            {"optimizer_state_dict": state, "ds_version": "0.16"},
            folder / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt",
        )
    return folder


@pytest.mark.parametrize("stage", [2, 3])
def test_master_weights_are_put_together_by_parameter(tmp_path: Path, stage: int) -> None:
    write(tmp_path, stage)
    report = scan(tmp_path)
    assert not report.unread
    records = {t.name: t for t in report.tensors}
    for name, tensor in values().items():
        record = records[f"fp32.{name}"]
        assert record.shape == tuple(tensor.shape)
        assert record.stats is not None
        finite = tensor[tensor.isfinite()].double()
        assert record.stats["mean"] == pytest.approx(float(finite.mean()), rel=1e-6)
    assert records["fp32.b.weight"].first_nonfinite == (2, 4)
    assert records["fp32.a.weight"].first_nonfinite == (4, 0)
    assert records["fp32.b.scale"].shape == ()
    assert {("nan", "fp32.b.weight"), ("inf", "fp32.a.weight")} <= {
        (f.code, f.tensor) for f in report.findings
    }


def test_a_missing_rank(tmp_path: Path) -> None:
    folder = write(tmp_path, 2)
    (folder / "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt").unlink()
    report = scan(folder)
    assert "missing_shard" in {f.code for f in report.findings}
    assert report.status.value == "incomplete"
    assert not any(t.name.startswith("fp32.") for t in report.tensors)


def test_the_last_rank_missing(tmp_path: Path) -> None:
    folder = write(tmp_path, 2)
    (folder / "bf16_zero_pp_rank_2_mp_rank_00_optim_states.pt").unlink()
    report = scan(folder)
    assert any("2 of 3" in sentence for sentence in report.unread)
