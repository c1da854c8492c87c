"""Folders in DeepSpeed's layout, written by torch.save as DeepSpeed's engine writes them."""

from __future__ import annotations

import importlib.util
import sys
from collections import OrderedDict
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch

from jobs import run_job
from ml_systems_debugger.checkpoints import scan

SHAPES = [
    OrderedDict({"a.weight": torch.Size([7, 5]), "a.bias": torch.Size([7])}),
    OrderedDict({"b.weight": torch.Size([3, 11]), "b.scale": torch.Size([])}),
]
WORLD = 3
OWN_GLOBALS = "deepspeed.runtime.zero.config"


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


class ZeroStageEnum:
    """Stands for DeepSpeed's enum: under its name in the file."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.number,)


def edited(folder: Path, rank: int, change: dict[str, object]) -> None:
    path = folder / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"
    saved = torch.load(path, weights_only=True)
    saved["optimizer_state_dict"].update(change)
    torch.save(saved, path)


def test_a_stage_that_is_a_member_of_an_enum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Newer writers save it so; stage 3 must not be cut as stage 2 is."""
    folder = write(tmp_path, 3)
    module = type(sys)(OWN_GLOBALS)
    monkeypatch.setattr(ZeroStageEnum, "__module__", OWN_GLOBALS)
    monkeypatch.setattr(module, "ZeroStageEnum", ZeroStageEnum, raising=False)
    parents = [OWN_GLOBALS.rsplit(".", cut)[0] for cut in (1, 2, 3)]
    for name in parents:  # pickle imports them on its way
        monkeypatch.setitem(sys.modules, name, type(sys)(name))
    monkeypatch.setitem(sys.modules, OWN_GLOBALS, module)
    for rank in range(WORLD):
        edited(folder, rank, {"zero_stage": ZeroStageEnum(3)})
    report = scan(folder)
    assert not report.unread
    assert "pickle_global" not in {f.code for f in report.findings}
    records = {t.name: t for t in report.tensors}
    assert records["fp32.b.weight"].first_nonfinite == (2, 4)
    assert records["fp32.a.weight"].first_nonfinite == (4, 0)


def test_parameters_that_are_aligned_one_by_one(tmp_path: Path) -> None:
    """Newer writers can leave gaps behind parameters, and say how wide they are."""
    folder = write(tmp_path, 2)
    found, gaps = values(), [[1, 5], [3, 2]]
    for rank in range(WORLD):
        parts = []
        for group, widths in zip(SHAPES, gaps, strict=True):
            flat = torch.cat([
                torch.nn.functional.pad(found[n].reshape(-1), (0, gap), value=9.0)
                for n, gap in zip(group, widths, strict=True)
            ])  # fmt: skip
            size = -(-len(flat) // WORLD)
            flat = torch.nn.functional.pad(flat, (0, size * WORLD - len(flat)))
            parts.append(flat[rank * size : (rank + 1) * size].clone())
        edited(folder, rank, {"single_partition_of_fp32_groups": parts,
                              "param_alignment_paddings": gaps})  # fmt: skip
    report = scan(folder)
    assert not report.unread
    records = {t.name: t for t in report.tensors}
    for name, tensor in found.items():
        stats = records[f"fp32.{name}"].stats
        assert stats is not None
        assert stats["absmax"] == float(tensor[tensor.isfinite()].abs().max())
    assert records["fp32.b.weight"].first_nonfinite == (2, 4)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"zero_stage": 4}, "zero_stage"),
     ({"param_alignment_paddings": [[0, 0]]}, "param_alignment_paddings"),
     ({"param_alignment_paddings": [[0, 0], [-1, 0]]}, "param_alignment_paddings"),
     ({"param_alignment_paddings": [[0, 0], [0, 60]]}, "its parameters take")],
)  # fmt: skip
def test_what_does_not_add_up_is_incomplete(
    tmp_path: Path, change: dict[str, object], said: str
) -> None:
    folder = write(tmp_path, 2)
    edited(folder, 0, change)
    report = scan(folder)
    assert report.status.value == "incomplete"
    assert any(said in sentence for sentence in report.unread)


def test_a_file_of_something_else_is_incomplete(tmp_path: Path) -> None:
    folder = write(tmp_path, 2)
    torch.save([torch.zeros(3)], folder / "mp_rank_00_model_states.pt")
    report = scan(folder)
    assert report.status.value == "incomplete"
    assert any("no dict of states" in sentence for sentence in report.unread)


def test_only_names_that_its_checkpoints_have_pass_as_its_own(tmp_path: Path) -> None:
    folder = write(tmp_path, 2)
    path = folder / "mp_rank_00_model_states.pt"
    with ZipFile(path) as archive:
        members = {n: archive.read(n) for n in archive.namelist()}
    payload = (
        b"\x80\x02}X\x01\x00\x00\x00acdeepspeed.runtime.utils\ncall\nX\x01\x00\x00\x00b\x85Rs."
    )
    with ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, payload if name.endswith("data.pkl") else data)
    found = [f for f in scan(folder).findings if f.code == "pickle_global"]
    assert [f.evidence["global"] for f in found] == ["deepspeed.runtime.utils.call"]


@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not there")
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_checkpoints_of_the_real_writer(tmp_path: Path, stage: int) -> None:
    """Two processes over gloo train and save; the weights are those of DeepSpeed's conversion."""
    run = tmp_path / "run"
    run_job(
        Path(__file__).parent / "write_deepspeed.py",
        tmp_path / "store",
        str(run),
        str(stage),
        seconds=240,
    )
    weights = torch.load(run / "weights.pt", weights_only=True)
    (run / "weights.pt").unlink()
    report = scan(run)
    assert report.status.value == "sound", [f.message for f in report.findings]
    records = {t.name: t for t in report.tensors if t.name.startswith("fp32.")}
    masters = {f"fp32.{n}": t for n, t in weights.items() if n != "0.bias"}  # bfloat16, frozen
    assert records.keys() == masters.keys()
    for name, tensor in masters.items():
        stats = records[name].stats
        assert stats is not None
        assert records[name].shape == tuple(tensor.shape)
        assert (stats["min"], stats["max"]) == (float(tensor.min()), float(tensor.max()))
        assert stats["l2"] == pytest.approx(float(tensor.double().norm()), rel=1e-6)
