"""Text for people: every tensor of a small checkpoint, the roles of a large one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ml_systems_debugger.checkpoints import CheckpointReport, inspect, scan
from ml_systems_debugger.checkpoints.render import render


def write(path: Path, layers: int) -> Path:
    rng = np.random.default_rng(0)
    arrays = {f"layers.{i}.{n}": rng.normal(size=(8, 8)) for i in range(layers) for n in "qkv"}
    arrays |= {f"layers.{i}.scale": np.ones(4, np.float32) for i in range(layers)}
    arrays["embed"] = rng.normal(size=(100, 8))
    for layer in range(0, layers, 3):
        arrays[f"layers.{layer}.q"][1, 2] = np.nan
    np.savez(path, **arrays)
    return path


def test_few_tensors_are_listed(tmp_path: Path) -> None:
    text = str(scan(write(tmp_path / "m.npz", 2)))
    for name in ("layers.0.q", "layers.1.scale", "embed"):
        assert f"  {name} " in text
    assert "layers.*" not in text


def test_many_tensors_are_one_line_a_role(tmp_path: Path) -> None:
    report = scan(write(tmp_path / "m.npz", 300))
    text = str(report)
    assert len(text.splitlines()) < 20
    (line,) = [line for line in text.splitlines() if line.startswith("  layers.*.k ")]
    assert line.split()[:6] == ["layers.*.k", "float64", "8x8", "300", "154", "kB"]
    ones = next(line for line in text.splitlines() if "layers.*.scale" in line)
    assert ones.split()[-3:] == ["1", "1", "0"]
    markdown = render(report, "markdown")
    assert "| layers.*.k | float64 | 8x8 | 300 |" in markdown


def test_findings_of_a_role_are_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    lines = str(scan(write(tmp_path / "m.npz", 300))).splitlines()
    at = next(n for n, line in enumerate(lines) if "critical nan" in line)
    assert "layers.0.q: 1 of 64 values are NaN" in lines[at]
    assert lines[at + 1] == "    the same in layers.3.q, layers.6.q, layers.9.q, and 96 more"


def test_more_roles_than_lines_are_counted(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", **{f"t{'x' * n}": np.arange(4.0) + n for n in range(60)})
    assert "... and 35 more tensors; --format json lists all" in str(scan(tmp_path / "m.npz"))


@pytest.mark.parametrize("layers", [2, 300])
def test_an_inspection_has_no_statistics(tmp_path: Path, layers: int) -> None:
    text = str(inspect(write(tmp_path / "m.npz", layers)))
    assert " min " not in text
    assert "embed" in text


def test_a_report_of_nothing_that_could_be_read_counts_nothing() -> None:
    report = CheckpointReport("m.pt", (), [], [], ["m.pt: not a checkpoint"], {})
    text = str(report)
    assert "Nothing could be read." in text
    assert "m.pt: not a checkpoint" in text
    assert "0 tensors" not in text
