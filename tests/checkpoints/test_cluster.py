"""Shares of a scan on real local clusters of several workers: the report is the local one."""

from __future__ import annotations

import json
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from planting import planted

from ml_systems_debugger.checkpoints import Options, scan, scan_on
from ml_systems_debugger.cli import scan as commands
from ml_systems_debugger.core import (
    ConfigurationError,
    MissingDependencyError,
    UnsupportedFormatError,
)  # fmt: skip

safetensors = pytest.importorskip("safetensors.torch")

# What the clusters' own threads and sockets leave behind is none of ours.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def dask() -> Iterator[str]:
    distributed = pytest.importorskip("distributed", reason="Dask's cluster is distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None,
            memory_limit=0,
        ) as cluster,
        distributed.Client(cluster),
    ):  # fmt: skip
        yield "dask"


@pytest.fixture(scope="module")
def ray() -> Iterator[str]:
    ray = pytest.importorskip("ray", reason="Ray's cluster is ray")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield "ray"
    ray.shutdown()


@pytest.fixture(params=["dask", "ray"])
def engine(request: Any) -> str:
    name: str = request.getfixturevalue(request.param)
    return name


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    everything = {f"layers.{i}.w": torch.randn(1200, 1000) for i in range(4)}
    everything["layers.2.w"][900, 17] = float("nan")
    everything["layers.1.w"][1047:1050] = 0
    safetensors.save_file({**everything, **planted()}, tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


def terms(report: Any) -> dict[str, Any]:
    out: dict[str, Any] = report.to_dict()
    del out["metadata"]["seconds"]
    return out


def test_the_report_is_the_local_one(checkpoint: Path, engine: str) -> None:
    whole = terms(scan(checkpoint))
    told: list[tuple[int, int]] = []
    for shares in (None, 1, 5):
        report = scan_on(
            checkpoint,
            engine,
            shares=shares,
            progress=lambda done, total: told.append((done, total)),
        )
        assert terms(report) == whole
    assert told[-1][0] == told[-1][1]


def test_several_workers_share_it(checkpoint: Path, engine: str) -> None:
    # Selection and options go along.
    chosen = {"include": ["layers.*"], "options": Options(access="mmap")}
    report = scan_on(checkpoint, engine, shares=3, **chosen)  # type: ignore[arg-type]
    assert terms(report) == terms(scan(checkpoint, **chosen))  # type: ignore[arg-type]
    assert len(report.tensors) == 4


def test_errors_are_those_of_a_scan(tmp_path: Path, engine: str) -> None:
    (tmp_path / "odd").write_bytes(b"hello world, no checkpoint")
    with pytest.raises(UnsupportedFormatError, match="no checkpoint that is known"):
        scan_on(tmp_path / "odd", engine)
    with pytest.raises(FileNotFoundError):
        scan_on(tmp_path / "missing", engine)


def test_an_early_end_keeps_what_was_found(checkpoint: Path, engine: str) -> None:
    stop = threading.Event()
    stop.set()
    report = scan_on(checkpoint, engine, shares=3, stop=stop)
    assert report.status.value == "incomplete"
    assert report.metadata["interrupted"]
    (file,) = report.files
    assert 0 < file.scanned_bytes < file.bytes


def test_the_command(checkpoint: Path, engine: str) -> None:
    result = CliRunner().invoke(
        commands.scan, [str(checkpoint), "--engine", engine, "--shares", "3", "--format", "json"]
    )
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["tensors"] == json.loads(json.dumps(terms(scan(checkpoint))))["tensors"]


def test_what_makes_no_sense(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="one of dask, ray, got 'spark'"):
        scan_on(checkpoint, "spark")
    run = CliRunner().invoke
    assert run(commands.scan, [str(checkpoint), "--engine", "ray", "--shard", "1/2"]).exit_code == 2
    assert run(commands.scan, [str(checkpoint), "--shares", "2"]).exit_code == 2
    for name in ("ray", "distributed"):
        monkeypatch.setitem(sys.modules, name, None)
    for engine in ("ray", "dask"):
        with pytest.raises(MissingDependencyError, match=rf"ml-systems-debugger\[{engine}\]"):
            scan_on(checkpoint, engine)
        assert run(commands.scan, [str(checkpoint), "--engine", engine]).exit_code == 2
