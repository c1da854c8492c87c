from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from ml_systems_debugger import kernels
from ml_systems_debugger.checkpoints import scan
from ml_systems_debugger.checkpoints.dtypes import DTYPES
from ml_systems_debugger.checkpoints.gguf import GGML_TYPES
from ml_systems_debugger.core import MLSystemsDebuggerError

gguf = pytest.importorskip("gguf")


def writer(path: Path):
    out = gguf.GGUFWriter(path, "llama")
    out.add_string("general.name", "test\x1b[2J")
    out.add_array("tokenizer.ggml.tokens", ["a", "b", "c"])
    out.add_uint32("some.number", 7)
    return out


def finish(out) -> None:
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def test_every_type_has_the_size_that_ggml_gives_it() -> None:
    for kind, (elements, size) in gguf.GGML_QUANT_SIZES.items():
        dtype = DTYPES[GGML_TYPES[int(kind)]]
        assert dtype.elements == elements, kind
        if kind.name != "Q8_1":  # gguf still has an older struct of it; it is never written
            assert dtype.bits == 8 * size, kind


def test_float_types_with_planted_values(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    out = writer(tmp_path / "m.gguf")
    found = {}
    for kind in ("f4", "f2", "f8", "i1", "i2", "i4", "i8"):
        values = (rng.normal(size=(5, 64)) * 9).astype(kind)
        if values.dtype.kind == "f":
            values[2, 33] = np.nan
        found[f"t.{values.dtype.name}"] = values
        out.add_tensor(f"t.{values.dtype.name}", values)
    brain = rng.normal(size=(5, 64)).astype("f4").view("u4") >> 16
    brain[3, 1] = 0x7F80
    out.add_tensor("t.bf16", brain.astype("u2").view(np.uint8).reshape(5, 128),
                   raw_dtype=gguf.GGMLQuantizationType.BF16)  # fmt: skip
    finish(out)
    report = scan(tmp_path / "m.gguf")
    records = {t.name: t for t in report.tensors}
    assert set(records) == {*found, "t.bf16"}
    for name, values in found.items():
        assert records[name].shape == (5, 64)
        assert records[name].first_nonfinite == ((2, 33) if values.dtype.kind == "f" else None)
        assert records[name].digest == f"{kernels.digest(values):016x}"
    assert records["t.bf16"].first_nonfinite == (3, 1)
    assert report.metadata["general.name"] == "test\\x1b[2J"
    assert sorted(f.code for f in report.findings) == ["inf", "nan", "nan", "nan"]


@pytest.mark.parametrize("name", ["Q4_0", "Q8_0", "Q5_1", "Q4_1", "Q5_0", "TQ1_0", "MXFP4"])
def test_scales_of_quantised_blocks_are_judged(tmp_path: Path, name: str) -> None:
    kind = gguf.GGMLQuantizationType[name]
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    values = np.random.default_rng(0).normal(size=(6, 2048)).astype("f4")
    quantised = gguf.quants.quantize(values, kind)
    broken = quantised.copy()
    dtype = DTYPES[GGML_TYPES[int(kind)]]
    at = dtype.scales[0].offset
    block = 2048 // elements + 1  # the second block of the second row
    flat = broken.reshape(-1, size)
    bad = {1: b"\xff", 2: b"\x00\x7c"}[1 if name == "MXFP4" else 2]
    flat[block, at : at + len(bad)] = np.frombuffer(bad, np.uint8)
    out = writer(tmp_path / "m.gguf")
    out.add_tensor("good", quantised, raw_dtype=kind)
    out.add_tensor("bad", broken, raw_dtype=kind)
    finish(out)
    report = scan(tmp_path / "m.gguf")
    good, bad_record = (next(t for t in report.tensors if t.name == n) for n in ("good", "bad"))
    assert good.shape == bad_record.shape == (6, 2048)
    assert good.stats is not None
    assert good.stats["size"] == 6 * 2048 // elements * len(dtype.scales)
    assert good.first_nonfinite is None
    assert bad_record.first_nonfinite == (1, elements)
    (found,) = report.findings
    assert (found.code, found.tensor, found.severity) == ("scale_not_finite", "bad", "critical")


def test_large_quantised_tensors_are_split(tmp_path: Path) -> None:
    kind = gguf.GGMLQuantizationType.Q8_0
    values = np.random.default_rng(0).normal(size=(3000, 3200)).astype("f4")
    quantised = gguf.quants.quantize(values, kind)
    scales = quantised.reshape(-1, 34)[:, :2].copy().view("f2").astype("f8")
    out = writer(tmp_path / "m.gguf")
    out.add_tensor("w", quantised, raw_dtype=kind)
    finish(out)
    (record,) = scan(tmp_path / "m.gguf").tensors
    assert record.stats is not None
    assert record.stats["size"] == scales.size
    assert record.stats["mean"] == pytest.approx(scales.mean(), rel=1e-8)
    assert record.stats["std"] == pytest.approx(scales.std(), rel=1e-7)
    assert record.stats["max"] == scales.max()
    assert record.digest == f"{kernels.digest(quantised):016x}"


def test_the_scale_in_nibbles() -> None:
    from ml_systems_debugger.checkpoints._scales import scale_values

    blocks = np.zeros((3, 56), np.uint8)
    wanted = np.array([0x3C00, 0x7C00, 0xABCD], "u2")
    words = np.stack([wanted << 12, (wanted >> 4) << 12, (wanted >> 8) << 12, (wanted >> 12) << 12])
    blocks[:, 48:56] = words.T.astype("<u2").copy().view(np.uint8)
    raw, kernel, size = scale_values(blocks.reshape(-1), DTYPES["iq1_m"])
    assert (kernel, size) == ("float16", 2)
    assert raw.view("<u2").tolist() == wanted.tolist()


def header(tensors: int, keys: int, body: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, keys) + body


def tensor(name: bytes, shape: list[int], kind: int, offset: int) -> bytes:
    sizes = b"".join(struct.pack("<Q", n) for n in shape)
    return (
        struct.pack("<Q", len(name))
        + name
        + struct.pack("<I", len(shape))
        + sizes
        + struct.pack("<IQ", kind, offset)
    )


HOSTILE = {
    "version": b"GGUF" + struct.pack("<I", 9) + bytes(64),
    "counts": header(1 << 60, 0) + bytes(64),
    "keys": header(0, 1 << 60) + bytes(64),
    "name": header(1, 0, struct.pack("<Q", 1 << 62)) + bytes(64),
    "type": header(1, 0, tensor(b"w", [32], 77, 0)) + bytes(64),
    "removed": header(1, 0, tensor(b"w", [32], 4, 0)) + bytes(64),
    "dimensions": header(1, 0, tensor(b"w", [1] * 9, 0, 0)) + bytes(64),
    "size": header(1, 0, tensor(b"w", [1 << 40, 1 << 40], 0, 0)) + bytes(64),
    "nothing of much": header(1, 0, tensor(b"w", [0, 1 << 61], 0, 0)) + bytes(64),
    "rows": header(1, 0, tensor(b"w", [31], 2, 0)) + bytes(64),
    "twice": header(2, 0, tensor(b"w", [8], 0, 0) + tensor(b"w", [8], 0, 32)) + bytes(128),
    "overlap": header(2, 0, tensor(b"w", [16], 0, 0) + tensor(b"v", [8], 0, 32)) + bytes(128),
    "unaligned": header(1, 0, tensor(b"w", [8], 0, 4)) + bytes(128),
    "no text": header(1, 0, tensor(b"w\xff", [8], 0, 0)) + bytes(64),
    "key no text": header(0, 1, struct.pack("<Q", 2) + b"k\xff" + struct.pack("<IB", 0, 1))
    + bytes(64),
    "cut": header(1, 0) + b"\x01",
    "array": header(0, 1, struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, 8, 1 << 50))
    + bytes(64),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_broken_files_are_refused_with_file_and_place(tmp_path: Path, case: str) -> None:
    (tmp_path / "bad.gguf").write_bytes(HOSTILE[case])
    with pytest.raises(MLSystemsDebuggerError, match=r"bad\.gguf"):
        scan(tmp_path / "bad.gguf")


def test_truncated(tmp_path: Path) -> None:
    out = writer(tmp_path / "m.gguf")
    out.add_tensor("w", np.ones(64, "f4"))
    finish(out)
    data = (tmp_path / "m.gguf").read_bytes()
    (tmp_path / "m.gguf").write_bytes(data[:-40])
    report = scan(tmp_path / "m.gguf")
    assert report.status.value == "incomplete"
    assert "truncated" in {f.code for f in report.findings}
