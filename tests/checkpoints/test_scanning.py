"""The engine: shards, files that change, interrupts, folders, what is not supported."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from planting import check_report, planted

from ml_systems_debugger import kernels
from ml_systems_debugger.checkpoints import (
    CheckpointFormat,
    TensorInfo,
    find_format,
    formats,
    merge,
    scan,
    scan_shard,
)  # fmt: skip
from ml_systems_debugger.checkpoints._digest import part_digest
from ml_systems_debugger.checkpoints._source import Folder
from ml_systems_debugger.cli._checkpoints import exit_code
from ml_systems_debugger.core import (
    ConfigurationError,
    RegistryError,
    SchemaError,
    UnsupportedFormatError,
)  # fmt: skip

save_file = pytest.importorskip("safetensors.torch").save_file


def large() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    out = {f"layers.{i}.w": torch.randn(1200, 1000) for i in range(4)}
    out["layers.2.w"][900, 17] = float("nan")
    out["layers.1.w"][1047:1050] = 0
    return {**out, **planted()}


@pytest.mark.parametrize("count", [1, 2, 5])
def test_shards_merge_to_the_same_report(tmp_path: Path, count: int) -> None:
    save_file(large(), tmp_path / "m.safetensors")
    whole = scan(tmp_path / "m.safetensors").to_dict()
    parts = [scan_shard(tmp_path / "m.safetensors", (i + 1, count)) for i in range(count)]
    merged = merge(parts[::-1]).to_dict()
    for report in (whole, merged):
        del report["metadata"]["seconds"]
    assert merged == whole


def test_merging_what_does_not_belong_together(tmp_path: Path) -> None:
    save_file(large(), tmp_path / "a.safetensors")
    save_file(planted(), tmp_path / "b.safetensors")
    one, two = (scan_shard(tmp_path / "a.safetensors", (i, 2)) for i in (1, 2))
    other = scan_shard(tmp_path / "b.safetensors", (2, 2))
    for parts, message in (
        ([one], "missing"), ([one, one], "missing"), ([one, other], "different scans"), ([], "no"),
        ([one, two, two], "twice"), ([one, {**two, "rows": "x"}], "damaged"),
        ([one, {**two, "which": one["which"], "rows": one["rows"]}], "damaged|same work"),
        ([{"shard": [1, 1]}], "damaged|different"),
    ):  # fmt: skip
        with pytest.raises(SchemaError, match=message):
            merge(parts)
    with pytest.raises(ConfigurationError):
        scan_shard(tmp_path / "a.safetensors", (3, 2))


class Meddling(Folder):
    """Does something to the file once the scan has read a little."""

    act = staticmethod(lambda path: None)

    def open(self, name: str, said_by: str = "", *, fresh: bool = False):
        source = super().open(name, said_by, fresh=fresh)
        if self._identities and getattr(self, "opened", 0) == 1:
            self.act(self.path(name))
        self.opened = getattr(self, "opened", 0) + 1
        return source


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 3_000_000)


def replace(path: Path) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(path.read_bytes())
    other.replace(path)


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("act", [truncate, replace, remove])
def test_a_file_that_changes_under_the_scan(
    tmp_path: Path, act, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ml_systems_debugger.checkpoints.contract as contract

    save_file(large(), tmp_path / "m.safetensors")
    monkeypatch.setattr(Meddling, "act", staticmethod(act))
    monkeypatch.setattr(contract, "Folder", Meddling)
    report = scan(tmp_path / "m.safetensors", workers=1)
    assert report.status.value == "incomplete"
    assert report.metadata["changed"]
    assert exit_code([report], "high") == 3
    assert any("m.safetensors" in sentence for sentence in report.unread)


def test_an_early_end_keeps_what_was_found(tmp_path: Path) -> None:
    save_file(large(), tmp_path / "m.safetensors")
    stop = threading.Event()
    report = scan(
        tmp_path / "m.safetensors", workers=1, stop=stop, progress=lambda done, total: stop.set()
    )
    assert report.status.value == "incomplete"
    assert report.metadata["interrupted"]
    scanned = [t for t in report.tensors if t.stats is not None]
    assert 0 < len(scanned) < len(report.tensors)


def test_progress_adds_up(tmp_path: Path) -> None:
    save_file(large(), tmp_path / "m.safetensors")
    told: list[tuple[int, int]] = []
    scan(tmp_path / "m.safetensors", progress=lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1]
    assert [d for d, _ in told] == sorted(d for d, _ in told)


def test_a_folder_of_several_formats(tmp_path: Path) -> None:
    tensors = planted()
    (tmp_path / "mp_rank_00").mkdir()
    torch.save(tensors, tmp_path / "mp_rank_00" / "model_optim_rng.pt")
    (tmp_path / "notes.txt").write_text("nothing")
    report = scan(tmp_path)
    check_report(report, {f"mp_rank_00/model_optim_rng.pt:{n}": t for n, t in tensors.items()})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.h5", b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5.*not supported yet"),
        ("m.onnx", b"\x08\x08\x12\x07pytorch" + bytes(64), "ONNX.*not supported yet"),
        ("m.index", b"abc" * 20, "TensorFlow.*not supported yet"),
        ("m.bin", b"hello world, no checkpoint", "no checkpoint that is known"),
        ("m.pt", b"", "empty file"),
    ],
)
def test_what_is_not_supported(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises((UnsupportedFormatError, SchemaError), match=message):
        scan(tmp_path / name)


def test_orbax_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFormatError, match="no checkpoint"):
        scan(tmp_path)
    (tmp_path / "_CHECKPOINT_METADATA").write_text("{}")
    with pytest.raises(UnsupportedFormatError, match="Orbax"):
        scan(tmp_path)


def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(SchemaError, match="regular file"):
        scan(tmp_path / "pipe.safetensors")


def test_the_suffix_does_not_matter(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "a.pt")
    torch.save({"w": torch.ones(2)}, tmp_path / "b.safetensors")
    assert find_format(tmp_path / "a.pt").name == "safetensors"
    assert find_format(tmp_path / "b.safetensors").name == "torch"


def test_a_format_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Flat(CheckpointFormat):
        """Raw float32 behind a magic word."""

        @classmethod
        def sniff(cls, path: Path, head: bytes) -> float:
            return 1.0 if head[:4] == b"FLAT" else 0.0

        def tensors(self):
            with self.folder.open(self.path.name) as source:
                size = source.size - 4
            return [TensorInfo("all", "float32", (size // 4,), self.path.name, 4, size)]

    monkeypatch.setattr(formats, "_classes", dict(formats.items()))
    formats.register("flat")(Flat)
    (tmp_path / "x").write_bytes(b"FLAT" + torch.ones(5).numpy().tobytes())
    (record,) = scan(tmp_path / "x").tensors
    assert record.stats is not None
    assert record.stats["mean"] == 1.0
    with pytest.raises(RegistryError, match="claimed by both"):
        formats.register("safetensors")(Flat)


def test_half_a_million_names_stay_cheap_to_plan(tmp_path: Path) -> None:
    count = 20_000
    save_file({f"layers.{i}.w": torch.full((3,), float(i)) for i in range(count)},
              tmp_path / "m.safetensors")  # fmt: skip
    report = scan(tmp_path / "m.safetensors")
    assert len(report.tensors) == count
    assert len(str(report).splitlines()) < 120


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 4096, (8 << 20) + 8, (17 << 20) + 3])
def test_digests_of_parts_add_up(size: int) -> None:
    raw = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    cut = size // 2 // 8 * 8
    parts = part_digest(raw[:cut], 0) + part_digest(raw[cut:], cut)
    assert parts % (1 << 64) == part_digest(raw, 0) == kernels.digest(raw)
