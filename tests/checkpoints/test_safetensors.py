from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from planting import check_report, planted

from ml_systems_debugger import kernels
from ml_systems_debugger.checkpoints import Options, inspect, scan
from ml_systems_debugger.core import MLSystemsDebuggerError, SchemaError

save_file = pytest.importorskip("safetensors.torch").save_file
load_file = pytest.importorskip("safetensors.numpy").load_file


def write(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_planted_values_of_every_type_are_found_exactly(tmp_path: Path) -> None:
    tensors = planted()
    save_file(tensors, tmp_path / "m.safetensors")
    report = scan(tmp_path / "m.safetensors")
    check_report(report, tensors)
    assert {f.code for f in report.findings} == {"nan", "inf"}


@pytest.mark.parametrize("workers", [1, 3])
def test_large_tensors_are_split_and_bit_identical(tmp_path: Path, workers: int) -> None:
    tensors = {
        "a": torch.randn(3, 700_001),
        "b": torch.randn(2_500_000, dtype=torch.float64) * 1e200,
        "c": torch.randn(1 << 20).bfloat16(),
        "d": torch.randn(1025, 1024).half(),
        "e": torch.zeros(0, 4),
        "f": torch.tensor(2.5),
    }
    save_file(tensors, tmp_path / "m.safetensors")
    check_report(scan(tmp_path / "m.safetensors", workers=workers), tensors)


def test_first_nonfinite_in_a_later_block(tmp_path: Path) -> None:
    tensor = torch.zeros(2000, 2000)
    tensor[1234, 567] = float("nan")
    tensor[1999, 1999] = float("inf")
    save_file({"w": tensor}, tmp_path / "m.safetensors")
    record = scan(tmp_path / "m.safetensors").tensors[0]
    assert record.first_nonfinite == (1234, 567)
    assert record.stats is not None
    assert (record.stats["nan"], record.stats["posinf"]) == (1, 1)


def test_include_and_exclude(tmp_path: Path) -> None:
    save_file({f"layers.{i}.w": torch.ones(2) * i for i in range(4)}, tmp_path / "m.safetensors")
    report = scan(tmp_path / "m.safetensors", include=["layers.*"], exclude=["*.2.w"])
    assert [t.name for t in report.tensors] == ["layers.0.w", "layers.1.w", "layers.3.w"]
    assert report.metadata["left_out"] == 1


def test_shards_of_an_index_are_one_checkpoint(tmp_path: Path) -> None:
    tensors = planted()
    names = sorted(tensors)
    halves = [names[::2], names[1::2]]
    weight_map = {}
    for number, half in enumerate(halves, 1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({n: tensors[n] for n in half}, tmp_path / file)
        weight_map.update(dict.fromkeys(half, file))
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    for path in (tmp_path, index):
        report = scan(path)
        check_report(report, tensors)
        assert len([f for f in report.files if f.path.endswith(".safetensors")]) == 2


def test_missing_and_extra_shards_and_tensors(tmp_path: Path) -> None:
    save_file({"a": torch.ones(3), "x": torch.ones(2)}, tmp_path / "m-00001-of-00003.safetensors")
    save_file({"z": torch.ones(3)}, tmp_path / "other.safetensors")
    weight_map = {"a": "m-00001-of-00003.safetensors", "b": "m-00002-of-00003.safetensors",
                  "q": "m-00001-of-00003.safetensors"}  # fmt: skip
    (tmp_path / "m.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    report = scan(tmp_path)
    codes = {f.code for f in report.findings}
    assert {"missing_shard", "missing_tensor", "extra_tensor", "extra_shard"} <= codes
    assert report.status.value == "incomplete"
    assert any("00002" in sentence for sentence in report.unread)


@pytest.mark.parametrize(
    "name", ["../evil.safetensors", "/etc/passwd", "a/../../b.safetensors", "a\\b", "x\0y"]
)
def test_paths_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    save_file({"w": torch.ones(2)}, tmp_path / "evil.safetensors")
    (folder / "m.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": name}}))
    with pytest.raises(SchemaError, match="inside the checkpoint's folder"):
        scan(folder)


def test_links_that_leave_the_folder_are_refused_unless_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    save_file({"w": torch.ones(2)}, tmp_path / "blob")
    (folder / "m.safetensors").symlink_to(tmp_path / "blob")
    (folder / "m.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"w": "m.safetensors"}})
    )
    with pytest.raises(SchemaError, match="leads out"):
        scan(folder)
    assert len(scan(folder, options=Options(follow_links=True)).tensors) == 1
    # A link that the user names is the user's own choice.
    assert len(scan(folder / "m.safetensors").tensors) == 1


TWO = {"a": entry("F32", [2], 0, 8), "b": entry("F32", [1], 8, 12)}
DUPLICATE = b'{"a":%s,"a":%s}' % ((b'{"dtype":"U8","shape":[1],"data_offsets":[0,1]}',) * 2)
HOSTILE = {
    "duplicate key": (DUPLICATE, "one name"),
    "duplicate field": (b'{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
                        "exactly dtype"),
    "overlap": ({"a": entry("F32", [2], 0, 8), "b": entry("F32", [1], 4, 8)}, "overlaps"),
    "gap": ({"a": entry("F32", [2], 0, 8), "b": entry("F32", [1], 9, 13)}, "gap"),
    "not from zero": ({"a": entry("F32", [2], 4, 12)}, "gap"),
    "product": ({"a": entry("F32", [3], 0, 8)}, "hold 8 bytes"),
    "overflow": ({"a": entry("F32", [1 << 62, 1 << 62], 0, 8)}, "beyond 64 bits"),
    "negative": ({"a": entry("F32", [-2], 0, 8)}, "no list of sizes"),
    "backwards": ({"a": entry("F32", [2], 8, 0)}, "data_offsets"),
    "boolean size": ({"a": entry("U8", [True], 0, 1)}, "no list of sizes"),
    "float size": (b'{"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}}', "sizes"),
    "type": ({"a": entry("F99", [2], 0, 8)}, "dtype is not known"),
    "dimensions": ({"a": entry("U8", [1] * 65, 0, 1)}, "no list of sizes"),
    "no object": (b"[1]", "no object"),
    "trailing text": (b"{}x", "behind the last brace"),
    "nested": (b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}", "the entry of a"),
    "NaN token": (b'{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,1]}}', "entry of a"),
    "trailing comma": (b'{"a":{"dtype":"U8","shape":[1,],"data_offsets":[0,1]}}', "entry of a"),
    "metadata": ({"__metadata__": {"a": 1}}, "map of strings"),
    "half a byte": ({"a": entry("F4", [3], 0, 2)}, "hold 2 bytes"),
    "latin": ('{"ä":1}'.encode("latin-1"), "UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_broken_headers_are_refused_with_file_and_place(tmp_path: Path, case: str) -> None:
    header, message = HOSTILE[case]
    path = write(tmp_path / "bad.safetensors", header, bytes(16))
    with pytest.raises(MLSystemsDebuggerError, match=message) as caught:
        scan(path)
    assert "bad.safetensors" in str(caught.value)


def test_a_header_beyond_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes((100_000_001).to_bytes(8, "little") + b"{}")
    with pytest.raises(MLSystemsDebuggerError, match="100000000"):
        scan(path)


def test_trailing_bytes_are_a_finding_of_their_own(tmp_path: Path) -> None:
    path = write(tmp_path / "m.safetensors", TWO, bytes(12) + b"more")
    report = scan(path)
    (found,) = [f for f in report.findings if f.code == "trailing_bytes"]
    assert found.evidence["bytes"] == 4
    assert found.severity == "high", "the library refuses the file"
    with pytest.raises(Exception, match=r"MetadataIncompleteBuffer|incomplete metadata"):
        load_file(path)


def test_blanks_before_the_header_are_a_finding(tmp_path: Path) -> None:
    header = b"  " + json.dumps({"a": entry("U8", [2], 0, 2)}).encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"ab")
    (found,) = [f for f in scan(path).findings if f.code == "strange_header"]
    assert found.severity == "low", "its own library reads it, others do not"
    assert load_file(path)["a"].tolist() == [97, 98]


def test_a_truncated_file_keeps_its_whole_tensors(tmp_path: Path) -> None:
    path = write(tmp_path / "m.safetensors", TWO, bytes(10))
    report = scan(path)
    assert [t.name for t in report.tensors] == ["a"]
    assert report.status.value == "incomplete"
    (found,) = [f for f in report.findings if f.code == "truncated"]
    assert found.evidence["missing_bytes"] == 2
    assert found.severity == "critical"


def test_names_are_escaped_where_they_are_shown(tmp_path: Path) -> None:
    name = "w\x1b[2J\n\u202e"
    path = write(tmp_path / "m.safetensors", {name: entry("F32", [1], 0, 4)}, b"\0\0\xc0\x7f")
    report = scan(path)
    for text in (str(report), report.to_markdown(), report.to_json()):
        assert not set(text) & {"\x1b", "\u202e"}
    assert "\\x1b" in str(report)
    assert report.tensors[0].name == name


def test_low_bit_types_are_sized_and_digested(tmp_path: Path) -> None:
    header = {"a": entry("F4", [3, 4], 0, 6), "b": entry("F6_E2M3", [4], 6, 9),
              "c": entry("F8_E8M0", [4], 9, 13)}  # fmt: skip
    report = scan(write(tmp_path / "m.safetensors", header, bytes(9) + b"\x7f\x7f\xff\x01"))
    a, b, c = report.tensors
    assert a.stats is None
    assert a.digest == b.digest == f"{0:016x}" or a.digest is not None
    assert c.first_nonfinite == (2,)


@pytest.mark.parametrize("size", [1 << 20, (1 << 20) + 64, 3 << 20, 9 << 20])
def test_opaque_tensors_of_every_size_are_digested(tmp_path: Path, size: int) -> None:
    data = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    header = {"a": entry("F4", [2 * size], 0, size), "b": entry("U8", [8], size, size + 8)}
    path = write(tmp_path / "m.safetensors", header, data.tobytes() + bytes(8))
    record = scan(path).tensors[0]
    assert record.stats is None
    assert record.digest == f"{kernels.digest(data):016x}"


def test_inspect_reads_no_data(tmp_path: Path) -> None:
    save_file({"w": torch.full((2, 3), float("nan"))}, tmp_path / "m.safetensors")
    report = inspect(tmp_path / "m.safetensors")
    (record,) = report.tensors
    assert (record.name, record.dtype, record.shape, record.nbytes) == ("w", "float32", (2, 3), 24)
    assert record.stats is None
    assert report.files[0].scanned_bytes == 0
