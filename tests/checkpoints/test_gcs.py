"""Checkpoints behind gs://, in a local server that speaks the store's JSON interface."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest
import torch
from click.testing import CliRunner
from planting import check_report, planted
from serving import gcs_store

from ml_systems_debugger.checkpoints import diff, inspect, scan
from ml_systems_debugger.cli import scan as commands

safetensors = pytest.importorskip("safetensors.torch")
gcsfs = pytest.importorskip("gcsfs", reason="gs:// is read through gcsfs")
pytest.importorskip("gcp_storage_emulator", reason="it is the store that speaks as gs:// does")


def comparable(report: Any) -> dict[str, Any]:
    out: dict[str, Any] = report.to_dict()
    del out["metadata"]["seconds"]
    out["metadata"].pop("path", None)
    return out


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with gcs_store() as url:
        yield url


class Bucket:
    """A bucket, written to without the filesystem that is tested."""

    def __init__(self, endpoint: str, name: str) -> None:
        self.url, self.name, self.endpoint = f"gs://{name}", name, endpoint
        self._ask("POST", "/storage/v1/b?project=test", json.dumps({"name": name}).encode())

    def write(self, key: str, data: bytes) -> None:
        where = f"/upload/storage/v1/b/{self.name}/o?uploadType=media&name={quote(key, safe='')}"
        self._ask("POST", where, data)

    def remove(self, key: str) -> None:
        self._ask("DELETE", f"/storage/v1/b/{self.name}/o/{quote(key, safe='')}")

    def put(self, folder: Path, under: str = "") -> None:
        for path in folder.rglob("*"):
            if path.is_file():
                self.write(under + path.relative_to(folder).as_posix(), path.read_bytes())

    def _ask(self, method: str, path: str, data: bytes | None = None) -> None:
        kind = "application/json" if path.startswith("/storage") else "application/octet-stream"
        asked = Request(  # noqa: S310 - the server of this test
            self.endpoint + path, data=data, method=method, headers={"Content-Type": kind}
        )
        with urlopen(asked, timeout=20) as answer:  # noqa: S310
            answer.read()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch, request: Any) -> Bucket:
    """An empty bucket, and the environment that leads to it."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", endpoint)
    # Which kind a bucket is would be asked over gRPC, which the server does not speak.
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    gcsfs.GCSFileSystem.clear_instance_cache()
    return Bucket(endpoint, f"b{abs(hash(request.node.name)) % 10**9}")


def test_a_bucket_gives_what_the_local_file_gives(tmp_path: Path, bucket: Bucket) -> None:
    torch.manual_seed(0)
    tensors = {"layers.0.w": torch.randn(3, 500_000), **planted()}
    safetensors.save_file(planted(), tmp_path / "small.safetensors")
    safetensors.save_file(tensors, tmp_path / "m.safetensors")
    torch.save(tensors, tmp_path / "m.pt")
    bucket.put(tmp_path)
    check_report(scan(f"{bucket.url}/small.safetensors"), planted())
    for name in ("m.safetensors", "m.pt"):
        assert comparable(scan(f"{bucket.url}/{name}")) == comparable(scan(tmp_path / name))
        listed = inspect(f"{bucket.url}/{name}").to_dict()["tensors"]
        assert listed == inspect(tmp_path / name).to_dict()["tensors"]
    change = diff(f"{bucket.url}/m.safetensors", tmp_path / "m.pt")
    assert not change.unread
    assert len(change.changes) == len(tensors)
    assert all(c.equal for c in change.changes)


def test_a_folder_of_shards(tmp_path: Path, bucket: Bucket) -> None:
    everything, weight_map = planted(), {}
    names = sorted(everything)
    for number in range(2):
        part = {n: everything[n] for n in names[number::2]}
        file = f"model-{number + 1:05d}-of-00002.safetensors"
        safetensors.save_file(part, tmp_path / file)
        weight_map.update(dict.fromkeys(part, file))
    (tmp_path / "m.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    bucket.put(tmp_path, "run/step/")
    for path in ("run/step", "run/step/m.safetensors.index.json"):
        check_report(scan(f"{bucket.url}/{path}"), everything)
    bucket.remove("run/step/model-00002-of-00002.safetensors")
    report = scan(f"{bucket.url}/run/step")
    assert report.status.value == "incomplete"
    assert any("model-00002-of-00002" in sentence for sentence in report.unread)


@pytest.mark.parametrize("act", ["replace", "shorten", "remove"])
def test_an_object_that_changes_under_the_scan(tmp_path: Path, bucket: Bucket, act: str) -> None:
    torch.manual_seed(0)
    safetensors.save_file({"w": torch.randn(3, 1_000_000)}, tmp_path / "m.safetensors")
    bucket.put(tmp_path)
    key, done = f"{bucket.url}/m.safetensors", []

    def meddle(read: int, total: int) -> None:
        if done:
            return
        done.append(read)
        data = (tmp_path / "m.safetensors").read_bytes()
        if act == "remove":
            bucket.remove("m.safetensors")
        else:
            changed = data[:-100] if act == "shorten" else data[:-1] + b"\1"
            bucket.write("m.safetensors", changed)

    report = scan(key, workers=1, progress=meddle)
    assert done
    assert report.status.value == "incomplete"
    assert report.metadata["changed"]
    assert any("m.safetensors" in sentence for sentence in report.unread)


def test_the_command_on_buckets(tmp_path: Path, bucket: Bucket) -> None:
    safetensors.save_file({"w": torch.randn(5, 7)}, tmp_path / "good.safetensors")
    safetensors.save_file(planted(), tmp_path / "bad.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "bad.safetensors").read_bytes()[:-9])
    bucket.put(tmp_path)

    def code(name: str, *more: str) -> int:
        return CliRunner().invoke(commands.scan, [f"{bucket.url}/{name}", *more]).exit_code

    assert code("good.safetensors") == 0
    assert code("bad.safetensors") == 1
    assert code("cut.safetensors", "--fail-on", "never") == 3
    assert code("none.safetensors") == 2
    with pytest.raises(FileNotFoundError, match="no such file"):
        scan(f"{bucket.url}/none.safetensors")
