"""Direct and mapped reads: the same report as the default, and what they cannot do is said."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from planting import check_report, planted

from ml_systems_debugger.checkpoints import Options, diff, scan
from ml_systems_debugger.checkpoints._access import DirectSource, MappedSource
from ml_systems_debugger.checkpoints._changed import ChangedError
from ml_systems_debugger.cli import scan as commands
from ml_systems_debugger.core import ConfigurationError, UnsupportedFormatError

safetensors = pytest.importorskip("safetensors.torch")


@pytest.fixture(params=["direct", "mmap"])
def options(request: Any, tmp_path: Path) -> Options:
    if request.param == "direct":
        (tmp_path / "probe").write_bytes(b"x")
        try:
            DirectSource(tmp_path / "probe", "probe").close()
        except UnsupportedFormatError:
            pytest.skip("this filesystem has no direct reads")
    return Options(access=request.param)


def test_reports_are_the_same(tmp_path: Path, options: Options) -> None:
    torch.manual_seed(0)
    everything = {"layers.0.w": torch.randn(1200, 1000), **planted()}
    safetensors.save_file(everything, tmp_path / "m.safetensors")
    torch.save({**everything, "view": everything["float32"].t()}, tmp_path / "m.pt")
    for name in ("m.safetensors", "m.pt"):
        default, other = scan(tmp_path / name), scan(tmp_path / name, options=options)
        terms = [report.to_dict() for report in (default, other)]
        for one in terms:
            del one["metadata"]["seconds"]
        assert terms[0] == terms[1]
    changed = diff(tmp_path / "m.safetensors", tmp_path / "m.pt", options=options)
    assert all(c.equal for c in changed.changes)


def test_the_command_takes_them(tmp_path: Path, options: Options) -> None:
    safetensors.save_file({"w": torch.randn(9, 9)}, tmp_path / "m.safetensors")
    result = CliRunner().invoke(
        commands.scan, [str(tmp_path / "m.safetensors"), f"--{options.access}"]
    )
    assert result.exit_code == 0
    text = " ".join(CliRunner().invoke(commands.scan, ["--help"]).output.split())
    assert "ends the process with SIGBUS" in text


@pytest.mark.parametrize("offset", [0, 1, 4095, 4096, 1_000_003])
@pytest.mark.parametrize("count", [1, 300_000, 2_000_000])
def test_direct_reads_of_any_place(tmp_path: Path, offset: int, count: int) -> None:
    data = os.urandom(3_000_007)
    (tmp_path / "x").write_bytes(data)
    try:
        source = DirectSource(tmp_path / "x", "x")
    except UnsupportedFormatError:
        pytest.skip("this filesystem has no direct reads")
    with source:
        out = bytearray(count)
        source.read_into(offset, memoryview(out))
        assert out == data[offset : offset + count]
        last = bytearray(500_000)
        source.read_into(len(data) - len(last), memoryview(last))
        assert last == data[-len(last) :]
        os.truncate(tmp_path / "x", 2_500_001)
        with pytest.raises(ChangedError, match="ends here now"):
            source.read_into(len(data) - len(last), memoryview(last))


def test_no_direct_reads_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    safetensors.save_file(planted(), tmp_path / "m.safetensors")
    real = os.open

    def refuse(path: Any, flags: int, *more: Any) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "invalid")
        return real(path, flags, *more)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UnsupportedFormatError, match="leave --direct out"):
        scan(tmp_path / "m.safetensors", options=Options(access="direct"))


def test_views_outlive_their_source(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"0123456789")
    with MappedSource(tmp_path / "x", "x") as source:
        view = source.view(3, 4)
        assert source.view(3, 8) is None
    assert view is not None
    assert bytes(view) == b"3456"
    (tmp_path / "empty").write_bytes(b"")
    with MappedSource(tmp_path / "empty", "empty") as source:
        assert source.view(0, 0) is None


def test_only_known_ways(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="access is pread"):
        Options(access="magic")


def test_mapped_planted(tmp_path: Path) -> None:
    safetensors.save_file(planted(), tmp_path / "m.safetensors")
    check_report(scan(tmp_path / "m.safetensors", options=Options(access="mmap")), planted())
