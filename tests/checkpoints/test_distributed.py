from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from planting import check_report, planted

from jobs import run_job
from ml_systems_debugger.checkpoints import scan
from ml_systems_debugger.core import SchemaError


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of two gloo processes, with rows, columns and nothing sharded."""
    root = tmp_path_factory.mktemp("dcp")
    run_job(
        Path(__file__).parent / "write_distributed.py",
        root / "store",
        str(root / "checkpoint"),
        seconds=120,
    )
    return root / "checkpoint"


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "checkpoint"))


def test_sharded_tensors_are_judged_whole(written: Path) -> None:
    expected = {f"model.{n}": t for n, t in planted((34, 46)).items()}
    big = torch.arange(1500 * 1401, dtype=torch.float32).reshape(1500, 1401)
    expected |= {"model.big_columns": big, "model.big_rows": big}
    expected["rng.seed"] = torch.tensor([1, 2, 3])
    assert len(list(written.glob("*.distcp"))) == 2
    check_report(scan(written), expected)


def test_a_missing_file(folder: Path) -> None:
    (folder / "__1_0.distcp").unlink()
    report = scan(folder)
    assert "missing_shard" in {f.code for f in report.findings}
    assert report.status.value == "incomplete"
    assert "empty" not in {f.code for f in report.findings}


def test_a_half_written_file(folder: Path) -> None:
    path = folder / "__1_0.distcp"
    path.write_bytes(path.read_bytes()[:-1000])
    report = scan(folder)
    assert "truncated" in {f.code for f in report.findings}
    assert report.status.value == "incomplete"


def test_without_metadata(folder: Path) -> None:
    (folder / ".metadata").unlink()
    with pytest.raises(SchemaError, match=r"without its \.metadata"):
        scan(folder)


def test_a_path_in_the_metadata_that_leaves_the_folder(folder: Path) -> None:
    data = (folder / ".metadata").read_bytes()
    assert b"__1_0.distcp" in data
    (folder / ".metadata").write_bytes(data.replace(b"__1_0.distcp", b"../0.distcp\x00"))
    with pytest.raises(SchemaError, match="inside the checkpoint's folder"):
        scan(folder)
