"""Checksums of zip members: a byte that is not the one that was written is found wherever it is."""

from __future__ import annotations

import io
import random
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp

from ml_systems_debugger.checkpoints import Options, merge, scan, scan_shard
from ml_systems_debugger.core import SchemaError
from ml_systems_debugger.kernels import crc32, crc32_combine


def test_crc32_is_that_of_zlib() -> None:
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, 70_000, np.uint8).tobytes()
    for size in (0, 1, 7, 63, 64, 65, 255, 256, 300, 4096, 70_000):
        assert crc32(data[:size]) == zlib.crc32(data[:size])
        whole = crc32(data[: size // 3], 5)
        assert whole == zlib.crc32(data[: size // 3], 5)
        rest = data[size // 3 : size]
        assert crc32_combine(crc32(data[: size // 3]), crc32(rest), len(rest)) == crc32(data[:size])


def tensors() -> dict[str, Any]:
    torch.manual_seed(0)
    big = torch.randn(1100, 1000)  # more than a unit
    return {
        "big": big, "view": torch.randn(8, 6).t()[1:4], "small": torch.randn(5),
        "part": torch.randn(100)[20:60], "zeros": torch.cat([big[:600], torch.zeros(9, 1000)]),
        "tied": big,
    }  # fmt: skip


def place_of(path: Path, name: str) -> tuple[int, int]:
    """Where a member's data begin, and how many there are."""
    with zipfile.ZipFile(path) as archive:
        member = next(i for i in archive.infolist() if i.filename.endswith(name))
        with path.open("rb") as source:
            source.seek(member.header_offset + 26)
            lengths = source.read(4)
        skip = int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
        return member.header_offset + 30 + skip, member.file_size


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as out:
        out.seek(at)
        byte = out.read(1)[0]
        out.seek(at)
        out.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("access", ["pread", "mmap", "direct"])
def test_every_storage_is_compared(tmp_path: Path, access: str) -> None:
    path = tmp_path / "m.pt"
    torch.save(tensors(), path)
    options = Options(access=access)
    assert scan(path, options=options).status.value != "incomplete"
    with zipfile.ZipFile(path) as archive:
        storages = [n for n in archive.namelist() if "/data/" in n]
    assert len(storages) == 5
    for name in storages:
        begin, size = place_of(path, name)
        for at in (begin, begin + size // 2, begin + size - 1):
            flip(path, at)
            report = scan(path, options=options)
            assert report.status.value == "incomplete"
            (sentence,) = report.unread
            assert "m.pt" in sentence
            assert name in sentence
            flip(path, at)
    assert scan(path, options=options).status.value != "incomplete"
    begin, _ = place_of(path, "data.pkl")
    flip(path, begin + 30)
    with pytest.raises(SchemaError, match=r"data\.pkl is damaged"):
        scan(path)


def test_tensors_that_are_left_out_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.save(tensors(), path)
    flip(path, place_of(path, "data/0")[0])
    assert scan(path, exclude=["big", "tied"]).status.value != "incomplete"
    assert scan(path, include=["tied"]).status.value == "incomplete"


def test_shards_say_what_the_whole_scan_says(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.save(tensors(), path)
    for name in ("data/0", "data/3"):
        begin, size = place_of(path, name)
        flip(path, begin + size - 1)
    whole = scan(path)
    assert len(whole.unread) == 2
    for count in (1, 2, 3):
        merged = merge([scan_shard(path, (i, count)) for i in range(1, count + 1)])
        assert sorted(merged.unread) == sorted(whole.unread)


def test_checksums_that_were_not_written_are_not_compared(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.randn(7, 9)}, tmp_path / "m.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert scan(tmp_path / "m.pt").status.value == "sound"


@pytest.mark.parametrize("compressed", [False, True])
def test_npz(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "m.npz"
    save = np.savez_compressed if compressed else np.savez
    rng = np.random.default_rng(0)
    arrays = {"a": rng.normal(size=(300, 1000)), "f": np.asfortranarray(rng.normal(size=(9, 8)))}
    if compressed:
        del arrays["f"]
    save(path, **arrays)
    options = Options(inflate=True)
    assert scan(path, options=options).status.value == "sound"
    for name in arrays:
        begin, size = place_of(path, f"{name}.npy")
        with zipfile.ZipFile(path) as archive:
            stored = archive.getinfo(f"{name}.npy").compress_size
        # Not the last byte of a compressed stream: some of its bits mean nothing.
        for at in (begin + stored // 2,) if compressed else (begin + size - 1,):
            flip(path, at)
            assert scan(path, options=options).status.value == "incomplete"
            flip(path, at)
    # The checksum itself, in both headers.
    content = path.read_bytes()
    crc = zipfile.ZipFile(io.BytesIO(content)).getinfo("a.npy").CRC.to_bytes(4, "little")
    assert content.count(crc) == 2
    path.write_bytes(content.replace(crc, bytes([crc[0] ^ 1]) + crc[1:]))
    report = scan(path, options=options)
    assert report.status.value == "incomplete"
    assert "CRC-32" in report.unread[0]


def test_chunks_of_a_distributed_checkpoint(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="single process|no_dist|process group"):
        dcp.save({"w": torch.randn(40, 50), "n": {"m": torch.ones(3)}}, checkpoint_id=tmp_path)
    assert scan(tmp_path).status.value != "incomplete"
    (part,) = tmp_path.glob("*.distcp")
    data = part.read_bytes()
    names = [m for m in range(len(data)) if data.startswith(b"PK\x03\x04", m)]
    assert names
    rng, found = random.Random(0), 0
    before = {t.name: t.digest for t in scan(tmp_path).tensors}
    for _ in range(60):
        at = rng.randrange(len(data))
        flip(part, at)
        try:
            report = scan(tmp_path)
        except SchemaError:
            found += 1
        else:
            same = {t.name: t.digest for t in report.tensors} == before
            assert same or report.status.value == "incomplete"
            found += report.status.value == "incomplete"
        flip(part, at)
    assert found > 20
