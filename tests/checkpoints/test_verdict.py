"""Checkpoints in the formats of code hosts and CI systems."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ml_systems_debugger.checkpoints import (
    CODES,
    EXPLANATIONS,
    CheckpointFinding,
    CheckpointReport,
    TensorRecord,
    diff,
    explanation,
    scan,
)


def test_every_code_is_explained() -> None:
    assert set(EXPLANATIONS) == set(CODES)
    for code in CODES:
        assert len(explanation(code).split("\n\n")[1]) > 40
    assert explanation("no_such_code") == ""


def test_checks_are_families_and_places_are_files_and_tensors(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {f"layers.{i}.w": rng.normal(size=(20, 30)) for i in range(4)}
    arrays["layers.2.w"][1, 2] = np.nan
    np.savez(tmp_path / "m.npz", head=rng.normal(size=(20, 30)), **arrays)
    verdict = scan(tmp_path / "m.npz").to_verdict()
    assert [c.name for c in verdict.checks] == ["structure", "head", "layers.*.w"]
    (notice,) = verdict.notices
    assert (notice.code, notice.check) == ("nan", "layers.*.w")
    assert notice.file == str(tmp_path / "m.npz")
    assert notice.places == (("tensor", "layers.2.w"),)
    assert notice.evidence["first_nonfinite"] == [1, 2]
    (rule,) = verdict.rules
    assert rule.help == EXPLANATIONS["nan"]


def test_a_file_of_a_folder_is_named(tmp_path: Path) -> None:
    tensor = TensorRecord("w", "float32", (4,), "part-1.safetensors", 16)
    finding = CheckpointFinding.of("nan", "critical", "NaN", "w")
    lost = CheckpointFinding.of("missing_shard", "critical", "gone", file="part-2.safetensors")
    verdict = CheckpointReport(str(tmp_path), (), [tensor], [finding, lost]).to_verdict()
    assert [n.file for n in verdict.notices] == [
        str(tmp_path / "part-1.safetensors"), str(tmp_path / "part-2.safetensors"),
    ]  # fmt: skip
    remote = CheckpointReport("s3://b/run", (), [tensor], [finding]).to_verdict()
    assert remote.notices[0].file == "s3://b/run/part-1.safetensors"


def test_sound_families_beyond_ten_thousand_are_one_check() -> None:
    tensors = [TensorRecord(f"t{n}", "float32", (1,), "f", 4) for n in range(12_000)]
    finding = CheckpointFinding.of("nan", "critical", "NaN", "t11999")
    verdict = CheckpointReport("f", (), tensors, [finding]).to_verdict()
    names = [c.name for c in verdict.checks]
    assert len(names) == 10_002
    assert "t11999" in names
    assert names[-1] == "2000 further families, sound"


def test_a_comparison_has_a_verdict(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(20, 30))
    np.savez(tmp_path / "a.npz", w=values)
    values[0, 0] = np.nan
    np.savez(tmp_path / "b.npz", w=values)
    verdict = diff(tmp_path / "a.npz", tmp_path / "b.npz").to_verdict()
    assert [n.code for n in verdict.notices] == ["newly_not_finite"]
    assert verdict.notices[0].file == str(tmp_path / "b.npz")
