from __future__ import annotations

import io
import os
import pickle
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planting import check_report, planted

from ml_systems_debugger.checkpoints import scan
from ml_systems_debugger.core import MLSystemsDebuggerError, SchemaError, UnsupportedFormatError


def test_planted_values_of_every_type_are_found_exactly(tmp_path: Path) -> None:
    tensors = planted()
    torch.save(tensors, tmp_path / "m.pt")
    report = scan(tmp_path / "m.pt")
    check_report(report, tensors)
    assert {f.code for f in report.findings} == {"nan", "inf"}


def test_unsigned_types_that_have_no_storage_class(tmp_path: Path) -> None:
    tensors = {str(w): torch.arange(5).to(getattr(torch, f"uint{w}")) for w in (16, 32, 64)}
    torch.save(tensors, tmp_path / "m.pt")
    check_report(scan(tmp_path / "m.pt"), tensors)


def test_views_are_read_in_row_major_order(tmp_path: Path) -> None:
    base = torch.randn(40, 60)
    tensors = {
        "transposed": base.t(),
        "sliced": base[3:30:2, 5:50:3],
        "row": base[7],
        "column": base[:, 9],
        "permuted": torch.randn(4, 5, 6, 7).permute(3, 1, 0, 2),
        "expanded": torch.randn(5, 1).expand(5, 3),
        "windows": torch.arange(10.0).unfold(0, 4, 1),
        "channels_last": torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last),
        "large_transposed": torch.randn(3000, 1100).t(),
        "scalar": torch.tensor(3.0),
        "empty": torch.zeros(0, 3),
    }
    torch.save(tensors, tmp_path / "m.pt")
    check_report(scan(tmp_path / "m.pt"), tensors)


def test_shared_memory_is_found_once(tmp_path: Path) -> None:
    tied = torch.randn(20, 30)
    torch.save({"embed": tied, "head": tied, "part": tied[:3]}, tmp_path / "m.pt")
    report = scan(tmp_path / "m.pt")
    (found,) = [f for f in report.findings if f.code == "shared_storage"]
    assert set(found.evidence["tensors"]) == {"embed", "head", "part"}
    assert found.severity == "low"


def test_modules_parameters_and_optimizer_states(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.BatchNorm1d(16))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(4, 8)).sum().backward()
    optimizer.step()
    state = {"model": model.state_dict(), "optim": optimizer.state_dict(), "epoch": 3,
             "args": {"lr": 1e-3}, "list": [torch.ones(2), (torch.zeros(3),)],
             "parameter": model[0].weight}  # fmt: skip
    torch.save(state, tmp_path / "m.ckpt")
    report = scan(tmp_path / "m.ckpt")
    names = {t.name for t in report.tensors}
    assert {"model.0.weight", "model.1.num_batches_tracked", "optim.state.0.exp_avg_sq",
            "list.0", "list.1.0", "parameter"} <= names  # fmt: skip
    assert report.worst_severity is None or report.worst_severity <= "low"
    torch.save(model, tmp_path / "module.pt")
    whole = scan(tmp_path / "module.pt")
    assert {"0.weight", "0.bias", "1.running_var"} <= {t.name for t in whole.tensors}
    assert any("torch.nn.modules" in f.evidence["global"] for f in whole.findings
               if f.code == "pickle_global")  # fmt: skip


class Canary:
    """Makes a folder when a pickle of it is run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_payload_never_runs_and_is_named(tmp_path: Path, protocol: int) -> None:
    canary = tmp_path / "canary"
    torch.save(
        {"w": torch.ones(3, 3), "x": Canary(canary)}, tmp_path / "m.pt", pickle_protocol=protocol
    )
    report = scan(tmp_path / "m.pt")
    assert not canary.exists()
    (found,) = [f for f in report.findings if f.code == "pickle_global"]
    assert found.severity == "critical"
    assert found.evidence["global"] in ("posix.mkdir", "nt.mkdir")
    assert [t.name for t in report.tensors] == ["w"]
    torch.load(tmp_path / "m.pt", weights_only=False)
    assert canary.exists(), "the canary would not have noticed"


def rewrite(path: Path, change: dict[str, bytes], compress: bool = False) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {i.filename: archive.read(i) for i in archive.infolist()}
    members.update(change)
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def test_big_endian_storages_are_turned(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    values[1, 2] = np.nan
    tensors = {"w": torch.from_numpy(values)}
    torch.save(tensors, tmp_path / "m.pt")
    rewrite(tmp_path / "m.pt", {"m/byteorder": b"big", "m/data/0": values.astype(">f4").tobytes()})
    (record,) = scan(tmp_path / "m.pt").tensors
    assert record.first_nonfinite == (1, 2)
    assert record.stats is not None
    assert record.stats["max"] == 11.0


def test_compressed_archives_are_refused_clearly(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1000)}, tmp_path / "m.pt")
    rewrite(tmp_path / "m.pt", {}, compress=True)
    with pytest.raises(UnsupportedFormatError, match="compressed"):
        scan(tmp_path / "m.pt")


def test_a_view_beyond_its_storage_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(100)}, tmp_path / "m.pt")
    rewrite(tmp_path / "m.pt", {"m/data/0": bytes(396)})
    with pytest.raises(SchemaError, match="396 bytes, and the pickle says 100 values of float32"):
        scan(tmp_path / "m.pt")


def test_a_member_that_others_take_for_a_folder_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(100)}, tmp_path / "m.pt")
    data = bytearray((tmp_path / "m.pt").read_bytes())
    at = data.rfind(b"m/data/0") - 46  # its entry of the directory
    data[at + 38] |= 0x10
    (tmp_path / "m.pt").write_bytes(data)
    with pytest.raises(SchemaError, match="marked as a folder and holds 400 bytes"):
        scan(tmp_path / "m.pt")


def test_a_member_on_another_disk_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(100)}, tmp_path / "m.pt")
    data = bytearray((tmp_path / "m.pt").read_bytes())
    at = data.rfind(b"m/data/0") - 46  # its entry of the directory
    data[at + 34 : at + 36] = b"\xff\xff"
    (tmp_path / "m.pt").write_bytes(data)
    with pytest.raises(UnsupportedFormatError, match="several disks"):
        scan(tmp_path / "m.pt")


@pytest.mark.parametrize("name", [".storage_alignment", "version"])
def test_a_number_beside_the_data_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    torch.save({"w": torch.ones(100)}, tmp_path / "m.pt")
    rewrite(tmp_path / "m.pt", {f"m/{name}": b"x"})
    with pytest.raises(SchemaError, match=f"{name} that is no number"):
        scan(tmp_path / "m.pt")


def test_the_byte_order_is_compared_with_its_checksum(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(100)}, tmp_path / "m.pt")
    data = (tmp_path / "m.pt").read_bytes()
    (tmp_path / "m.pt").write_bytes(data.replace(b"little", b"bittle"))
    with pytest.raises(SchemaError, match="byteorder is damaged"):
        scan(tmp_path / "m.pt")


def test_a_missing_storage_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(100)}, tmp_path / "m.pt")
    data = (tmp_path / "m.pt").read_bytes().replace(b"m/data/0", b"m/data/9")
    (tmp_path / "m.pt").write_bytes(data)
    with pytest.raises(SchemaError, match="storage 0 is not in the archive"):
        scan(tmp_path / "m.pt")


def test_a_storage_that_no_tensor_shows_must_be_there_too(tmp_path: Path) -> None:
    storage = ("storage", torch.FloatStorage, "7", "cpu", 4)
    out = io.BytesIO()
    pickler = pickle.Pickler(out, 2)
    pickler.persistent_id = lambda value: storage if value == "here" else None  # type: ignore[method-assign]
    pickler.dump({"odd": "here"})
    torch.save({"w": torch.ones(4)}, tmp_path / "m.pt")
    rewrite(tmp_path / "m.pt", {"m/data.pkl": out.getvalue()})
    with pytest.raises(SchemaError, match="storage 7 is not in the archive"):
        scan(tmp_path / "m.pt")


def test_pickles_that_no_loader_runs_are_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(4)}, tmp_path / "m.pt")
    with zipfile.ZipFile(tmp_path / "m.pt") as archive:
        data = archive.read("m/data.pkl")
    for old, new, message in (
        (b"_rebuild_tensor_v2", b"_rebuild_tensor_v3", "a tensor of 6 parts"),
        (b"FloatStorage", b"FlootStorage", "a storage without a type"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n", b"X\x01\x00\x00\x00w", "calls what cannot be"),
    ):
        assert old in data
        rewrite(tmp_path / "m.pt", {"m/data.pkl": data.replace(old, new)})
        with pytest.raises(SchemaError, match=message):
            scan(tmp_path / "m.pt")


def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(4)}, tmp_path / "m.pt")
    with (
        pytest.warns(UserWarning, match="Duplicate name"),
        zipfile.ZipFile(tmp_path / "m.pt", "a") as archive,
    ):
        archive.writestr("m/data.pkl", b"other")
    with pytest.raises(SchemaError, match="two members of one name"):
        scan(tmp_path / "m.pt")


def test_headers_that_disagree_are_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(4)}, tmp_path / "m.pt")
    data = bytearray((tmp_path / "m.pt").read_bytes())
    at = data.find(b"m/data/0")
    data[at : at + 8] = b"m/data/7"  # the local header only
    (tmp_path / "m.pt").write_bytes(bytes(data))
    with pytest.raises(SchemaError, match="disagree"):
        scan(tmp_path / "m.pt")


@pytest.mark.parametrize("form", ["raw", "tar", "bare"])
def test_legacy_forms_get_a_clear_message(tmp_path: Path, form: str) -> None:
    path = tmp_path / "old.pt"
    if form == "raw":
        torch.save({"w": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
    elif form == "bare":
        path.write_bytes(pickle.dumps({"w": [1.0]}))
    else:
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
            for name in ("storages", "tensors", "pickle"):
                info = tarfile.TarInfo(name)
                info.size = 4
                archive.addfile(info, io.BytesIO(b"abcd"))
    with pytest.raises(UnsupportedFormatError, match=r"torch before 1\.6.*weights_only"):
        scan(path)


def pickled(path: Path, data: bytes) -> Path:
    torch.save({"w": torch.ones(3)}, path)
    rewrite(path, {f"{path.stem}/data.pkl": data})
    return path


BOMBS = {
    "lists": b"\x80\x02" + b"]" * 3_000_000 + b".",
    "nested tuples": b"\x80\x02)" + b"\x85" * 200_000 + b".",
    "deep dicts": b"\x80\x02" + b"}X\x01\x00\x00\x00a" * 5000 + b"}" + b"s" * 5000 + b".",
    "no stop": b"\x80\x02}",
    "empty stack": b"\x80\x02R.",
    "unknown opcode": b"\x80\x02\xff.",
    "huge string": b"\x80\x02X\xff\xff\xff\xff.",
    "huge frame": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "huge integer": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "no memo": b"\x80\x02h\x05.",
    "behind the end": b"\x80\x02}.}",
    "text index": b"\x80\x02}pabc\n.",
    "marks": b"\x80\x02" + b"(" * 1000 + b".",
}


@pytest.mark.parametrize("case", BOMBS)
def test_broken_and_exploding_pickles(tmp_path: Path, case: str) -> None:
    path = pickled(tmp_path / "m.pt", BOMBS[case])
    with pytest.raises(MLSystemsDebuggerError, match=r"m\.pt"):
        scan(path)


def test_shared_references_do_not_explode(tmp_path: Path) -> None:
    # Ten levels of ten references to the level below: ten thousand million paths.
    level: list[Any] = [torch.ones(2)]
    for _ in range(10):
        level = [level] * 10
    torch.save(level, tmp_path / "m.pt")
    assert len(scan(tmp_path / "m.pt").tensors) == 1


def test_integers_and_odd_keys(tmp_path: Path) -> None:
    state = OrderedDict({1: torch.ones(2), (1, 2): torch.ones(3), 2**70: torch.ones(4)})
    torch.save({"state": state, "rng": 3**500}, tmp_path / "m.pt")
    assert len(scan(tmp_path / "m.pt").tensors) == 3


@pytest.mark.parametrize("lazy", ["conj", "neg"])
def test_values_that_are_turned_when_they_are_loaded_are_not_judged_as_they_lie(tmp_path, lazy):
    view = torch.ones(2, dtype=torch.complex64).conj()
    torch.save({"w": view if lazy == "conj" else view.imag, "b": torch.ones(3)}, tmp_path / "m.pt")
    report = scan(tmp_path / "m.pt")
    assert report.status.value == "incomplete"
    assert "tensor w conjugates or negates what lies there" in str(report)
    assert [t.name for t in report.tensors] == ["b"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [(lambda a: (*a, None, None), "a tensor of 8 parts"), (lambda a: a[:5], "a tensor of 5 parts"),
     (lambda a: (*a[:4], 1, *a[5:]), "neither wants a gradient"),
     (lambda a: (*a, {"conj": 1}), "bits that are none"),
     (lambda a: (*a, 3), "bits that are none")],
)  # fmt: skip
def test_arguments_that_torch_refuses_are_refused(tmp_path, change, reason):
    class Changed(torch.Tensor):
        def __reduce_ex__(self, protocol):
            maker, args = torch.ones(2).__reduce_ex__(protocol)
            return maker, change(args)

    torch.save({"w": torch.ones(2).as_subclass(Changed)}, tmp_path / "m.pt")
    with pytest.raises(Exception):  # noqa: B017 - of whatever kind
        torch.load(tmp_path / "m.pt")
    with pytest.raises(SchemaError, match=reason):
        scan(tmp_path / "m.pt")


def test_a_tensor_that_nothing_holds_is_looked_at_too(tmp_path):
    torch.save({"a": torch.ones(2, 3), "b": torch.ones(5)}, tmp_path / "m.pt")
    with zipfile.ZipFile(tmp_path / "m.pt") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    (name,) = [n for n in members if n.endswith("data.pkl")]
    # The second takes the place of the first, whose strides are out of their storage.
    members[name] = members[name].replace(b"X\x01\0\0\0b", b"X\x01\0\0\0a")
    members[name] = members[name].replace(b"K\x03K\x01\x86", b"K\x63K\x01\x86")
    with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(RuntimeError, match="storage"):
        torch.load(tmp_path / "m.pt")
    with pytest.raises(SchemaError, match="reaches to element"):
        scan(tmp_path / "m.pt")
