from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ml_systems_debugger import kernels
from ml_systems_debugger.checkpoints import Options, scan
from ml_systems_debugger.core import MLSystemsDebuggerError, SchemaError, UnsupportedFormatError

TYPES = ("f8", "f4", "f2", "c8", "c16", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?")


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    out = {}
    for kind in TYPES:
        values = (rng.normal(size=(13, 17)) * 3).astype(kind)
        if values.dtype.kind in "fc":
            values[4, 5] = np.nan
            values[11, 0] = -np.inf
        out[f"t_{np.dtype(kind).name}"] = values
    return out


def check(record, values: np.ndarray) -> None:
    expected = kernels.tensor_stats(np.ascontiguousarray(values))
    assert record.stats["nan"] == expected.nan
    assert record.stats["mean"] == expected.mean
    assert record.stats["l2"] == expected.l2
    assert record.digest == f"{kernels.digest(np.ascontiguousarray(values)):016x}"
    assert record.first_nonfinite == ((4, 5) if values.dtype.kind in "fc" else None)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_npz_of_every_type_order_and_byte_order(tmp_path: Path, order: str, byteorder: str) -> None:
    found = arrays()
    stored = {
        n: np.array(v, dtype=v.dtype.newbyteorder(byteorder), order=order)  # type: ignore[call-overload]
        for n, v in found.items()
    }
    np.savez(tmp_path / "m.npz", **stored)
    report = scan(tmp_path / "m.npz")
    assert len(report.tensors) == len(found)
    for record in report.tensors:
        check(record, found[record.name])


def test_one_npy(tmp_path: Path) -> None:
    values = arrays()["t_float32"]
    np.save(tmp_path / "w.npy", values)
    (record,) = scan(tmp_path / "w.npy").tensors
    assert record.name == "w"
    check(record, values)


def test_deflated_members_are_read_by_opt_in_only(tmp_path: Path) -> None:
    found = arrays()
    found["big"] = np.random.default_rng(1).normal(size=(1500, 1000)).astype("f4")
    found["big"][4, 5] = np.nan
    np.savez_compressed(tmp_path / "m.npz", **found)
    plain = scan(tmp_path / "m.npz")
    assert plain.status.value == "incomplete"
    assert not plain.tensors
    report = scan(tmp_path / "m.npz", options=Options(inflate=True))
    assert len(report.tensors) == len(found)
    for record in report.tensors:
        check(record, found[record.name])


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "m.npz", w=np.zeros(50_000_000, "f4"))
    report = scan(tmp_path / "m.npz", options=Options(inflate=True))
    assert "times its size" in report.unread[0]
    limited = scan(tmp_path / "m.npz", options=Options(inflate=True, max_inflated_bytes=1000))
    assert "more than 1000 bytes" in limited.unread[0]


def test_damaged_deflate_data_are_an_error_not_a_result(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "m.npz", w=np.random.default_rng(0).normal(size=400_000))
    with zipfile.ZipFile(tmp_path / "m.npz") as archive:
        info = archive.infolist()[0]
    data = bytearray((tmp_path / "m.npz").read_bytes())
    middle = info.header_offset + info.compress_size // 2
    data[middle : middle + 64] = bytes(64)
    (tmp_path / "m.npz").write_bytes(bytes(data))
    report = scan(tmp_path / "m.npz", options=Options(inflate=True))
    # Either the stream breaks, or it decodes to other values of the declared size.
    assert report.unread or report.tensors[0].digest is not None


def test_object_arrays_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "o.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    with pytest.raises(UnsupportedFormatError, match="running a pickle"):
        scan(tmp_path / "o.npy")


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (3,)",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (-3,)}",
        b"{'descr': '<f4', 'shape': (3,)}",
        b"__import__('os').system('true')",
        b"(" * 900 + b")" * 900,
        b"{'descr': '<q9', 'fortran_order': False, 'shape': (3,)}",
    ],
)
def test_broken_headers(tmp_path: Path, header: bytes) -> None:
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(12)
    (tmp_path / "x.npy").write_bytes(data)
    with pytest.raises(MLSystemsDebuggerError, match=r"x\.npy"):
        scan(tmp_path / "x.npy")


def test_truncated_and_trailing(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.ones(10, "f4"))
    (tmp_path / "short.npy").write_bytes(buffer.getvalue()[:-1])
    (tmp_path / "long.npy").write_bytes(buffer.getvalue() + b"x")
    short, long = scan(tmp_path / "short.npy"), scan(tmp_path / "long.npy")
    assert [f.code for f in short.findings if f.severity == "critical"] == ["truncated"]
    assert short.status.value == "incomplete"
    assert [f.code for f in long.findings] == ["trailing_bytes"]


def test_what_numpy_refuses_is_refused(tmp_path: Path) -> None:
    # Found by fuzzing: a blank that is none in ASCII, and a gap before a zip's end record.
    np.save(tmp_path / "a.npy", np.ones((3, 4)))
    data = bytearray((tmp_path / "a.npy").read_bytes())
    data[data.index(b" \n")] = 0xA0
    (tmp_path / "a.npy").write_bytes(data)
    np.savez(tmp_path / "b.npz", w=np.ones(3))
    archive = (tmp_path / "b.npz").read_bytes()
    end = archive.rindex(b"PK\x05\x06")
    (tmp_path / "b.npz").write_bytes(archive[:end] + bytes(16) + archive[end:])
    at = archive.index(b"PK\x01\x02") + 6
    (tmp_path / "c.npz").write_bytes(archive[:at] + b"\xe2" + archive[at + 1 :])
    for name in ("a.npy", "b.npz", "c.npz"):
        with pytest.raises((ValueError, zipfile.BadZipFile, NotImplementedError)):
            np.load(io.BytesIO((tmp_path / name).read_bytes()))
        with pytest.raises((SchemaError, UnsupportedFormatError)):
            scan(tmp_path / name)


def test_a_minor_version_that_numpy_refuses(tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", np.ones(3))
    data = bytearray((tmp_path / "w.npy").read_bytes())
    data[7] = 248
    (tmp_path / "w.npy").write_bytes(data)
    with pytest.raises(UnsupportedFormatError, match="version"):
        scan(tmp_path / "w.npy")
