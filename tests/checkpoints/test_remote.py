"""Checkpoints behind URLs: a store that speaks S3, HTTP servers with ranges and without."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from planting import check_report, planted
from serving import http_files, s3_store

from ml_systems_debugger.checkpoints import Options, diff, inspect, merge, scan, scan_shard
from ml_systems_debugger.checkpoints._place import is_remote, place_of, relative_name
from ml_systems_debugger.checkpoints._plan import Stretch, make_plan, stretches
from ml_systems_debugger.checkpoints.opening import open_checkpoint, read_tensors
from ml_systems_debugger.cli import scan as commands
from ml_systems_debugger.core import (
    ConfigurationError,
    MissingDependencyError,
    SchemaError,
    UnsupportedFormatError,
)  # fmt: skip

safetensors = pytest.importorskip("safetensors.torch")
pytest.importorskip("aiohttp", reason="http:// is read through aiohttp")
fsspec = pytest.importorskip("fsspec", reason="URLs are read through fsspec")

SIZE = 3_000_000  # values of the large tensor: twelve units


def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    out = {"layers.0.w": torch.randn(3, SIZE // 3), **planted()}
    out["layers.0.w"][2, 17] = float("nan")
    return out


def comparable(report: Any) -> dict[str, Any]:
    out: dict[str, Any] = report.to_dict()
    del out["metadata"]["seconds"]
    out["metadata"].pop("path", None)
    return out


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    pytest.importorskip("s3fs", reason="s3:// is read through s3fs")
    pytest.importorskip("moto.server", reason="moto is the store that speaks S3")
    with s3_store() as url:
        yield url


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch, request: Any) -> Iterator[Any]:
    """An empty bucket, its filesystem and the environment that leads to it."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_ENDPOINT_URL": endpoint, "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    import s3fs

    fs = s3fs.S3FileSystem(endpoint_url=endpoint, skip_instance_cache=True)
    name = f"b{abs(hash(request.node.name)) % 10**9}"
    fs.mkdir(name)

    class Bucket:
        url = f"s3://{name}"

        @staticmethod
        def put(folder: Path, under: str = "") -> None:
            for path in folder.rglob("*"):
                if path.is_file():
                    key = "/".join(filter(None, (name, under, path.relative_to(folder).as_posix())))
                    fs.pipe_file(key, path.read_bytes())

    yield Bucket
    fs.rm(name, recursive=True)


def test_s3_gives_what_the_local_file_gives(tmp_path: Path, bucket: Any) -> None:
    safetensors.save_file(tensors(), tmp_path / "m.safetensors")
    torch.save(tensors(), tmp_path / "m.pt")
    bucket.put(tmp_path)
    for name in ("m.safetensors", "m.pt"):
        report = scan(f"{bucket.url}/{name}")
        check_report_but_for_large(report)
        there, here = comparable(report), comparable(scan(tmp_path / name))
        assert there == here
        assert (
            inspect(f"{bucket.url}/{name}").to_dict()["tensors"]
            == (inspect(tmp_path / name).to_dict()["tensors"])
        )
    change = diff(f"{bucket.url}/m.safetensors", tmp_path / "m.pt")
    assert not change.unread
    assert all(c.equal for c in change.changes)
    assert len(change.changes) == len(tensors())


def check_report_but_for_large(report: Any) -> None:
    records = {t.name: t for t in report.tensors}
    assert records["layers.0.w"].first_nonfinite == (2, 17)
    small = {n: t for n, t in tensors().items() if n != "layers.0.w"}
    assert set(records) == {*small, "layers.0.w"}
    assert {t.name for t in report.tensors if t.first_nonfinite} == {
        "layers.0.w", *(n for n in small if records[n].first_nonfinite),
    }  # fmt: skip


def test_an_index_and_its_shards_in_a_bucket(tmp_path: Path, bucket: Any) -> None:
    everything = planted()
    names = sorted(everything)
    weight_map = {}
    for number in range(3):
        part = {n: everything[n] for n in names[number::3]}
        file = f"model-{number + 1:05d}-of-00003.safetensors"
        safetensors.save_file(part, tmp_path / file)
        weight_map.update(dict.fromkeys(part, file))
    index = "model.safetensors.index.json"
    (tmp_path / index).write_text(json.dumps({"weight_map": weight_map}))
    bucket.put(tmp_path, "run/step")
    for path in (
        f"{bucket.url}/run/step",
        f"{bucket.url}/run/step/",
        f"{bucket.url}/run/step/{index}",
    ):
        report = scan(path)
        check_report(report, everything)
        assert report.status.value == "findings"
    parts = [scan_shard(f"{bucket.url}/run/step", (i, 2)) for i in (1, 2)]
    merged = comparable(merge(parts))
    assert merged == comparable(scan(f"{bucket.url}/run/step"))
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    bucket.put(tmp_path, "half")
    report = scan(f"{bucket.url}/half/{index}")
    assert "missing_shard" in {f.code for f in report.findings}
    assert report.status.value == "incomplete"


def test_folders_of_other_formats_in_a_bucket(tmp_path: Path, bucket: Any) -> None:
    everything = planted()
    (tmp_path / "mp_rank_00").mkdir()
    torch.save(everything, tmp_path / "mp_rank_00" / "model_optim_rng.pt")
    (tmp_path / "notes.txt").write_text("nothing")
    bucket.put(tmp_path, "megatron")
    report = scan(f"{bucket.url}/megatron")
    check_report(report, {f"mp_rank_00/model_optim_rng.pt:{n}": t for n, t in everything.items()})
    import torch.distributed.checkpoint as dcp

    shutil.rmtree(tmp_path)
    state = {n: t for n, t in everything.items() if not t.is_complex()}
    with pytest.warns(UserWarning, match="single process|no_dist|process group"):
        dcp.save(state, checkpoint_id=tmp_path / "dcp")
    bucket.put(tmp_path / "dcp", "dcp")
    assert comparable(scan(f"{bucket.url}/dcp")) == comparable(scan(tmp_path / "dcp"))


@pytest.mark.parametrize("act", ["replace", "shorten", "remove"])
def test_an_object_that_changes_under_the_scan(
    tmp_path: Path, bucket: Any, act: str, endpoint: str
) -> None:
    safetensors.save_file(tensors(), tmp_path / "m.safetensors")
    bucket.put(tmp_path)
    import s3fs

    fs = s3fs.S3FileSystem(endpoint_url=endpoint, skip_instance_cache=True)
    key = f"{bucket.url}/m.safetensors"
    done = []

    def meddle(read: int, total: int) -> None:
        if done:
            return
        done.append(read)
        data = (tmp_path / "m.safetensors").read_bytes()
        if act == "remove":
            fs.rm_file(key)
        else:
            fs.pipe_file(key, data[:-100] if act == "shorten" else data[:-1] + b"\1")

    report = scan(key, workers=1, progress=meddle)
    assert done
    assert report.status.value == "incomplete"
    assert report.metadata["changed"]
    assert any("m.safetensors" in sentence for sentence in report.unread)


def test_what_is_not_there_and_who_may_not_see_it(
    bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError, match="no such file") as caught:
        scan(f"{bucket.url}/none.safetensors")
    assert caught.value.filename == f"{bucket.url}/none.safetensors"
    with pytest.raises(OSError, match=r"cannot be read|may not be read") as failed:
        scan(
            "s3://some/m.pt",
            options=Options(
                storage_options={
                    "endpoint_url": "http://127.0.0.1:9",
                    "config_kwargs": {"retries": {"max_attempts": 0}},
                }
            ),
        )
    assert failed.value.filename == "s3://some/m.pt"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(OSError, match=r"[Cc]redentials"):
        scan(f"{bucket.url}/m.pt")


def test_the_command_on_urls(
    tmp_path: Path, bucket: Any, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    safetensors.save_file({"w": torch.randn(5, 7)}, tmp_path / "good.safetensors")
    safetensors.save_file(planted(), tmp_path / "bad.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "bad.safetensors").read_bytes()[:-9])
    bucket.put(tmp_path)
    given = {"endpoint_url": endpoint, "key": "testing", "secret": "testing"}
    (tmp_path / "options.json").write_text(json.dumps(given))
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)

    def code(command: str, *more: str, options: str = f"@{tmp_path}/options.json") -> int:
        arguments = [*more, "--storage-options", options]
        return CliRunner().invoke(getattr(commands, command), arguments).exit_code

    good, bad = f"{bucket.url}/good.safetensors", f"{bucket.url}/bad.safetensors"
    assert code("scan", good) == 0
    assert code("scan", good, options=json.dumps(given)) == 0
    assert code("scan", bad) == 1
    assert code("diff", good, good) == 0
    assert code("inspect", good) == 0
    assert code("scan", f"{bucket.url}/none.safetensors") == 2
    assert code("scan", "nosuchthing://x") == 2
    assert code("scan", good, options="[1]") == 2
    assert code("scan", f"{bucket.url}/cut.safetensors", "--fail-on", "never") == 3
    monkeypatch.setitem(sys.modules, "fsspec", None)
    result = CliRunner().invoke(commands.scan, [good])
    assert result.exit_code == 2
    assert "ml-systems-debugger[remote]" in result.output


def test_http_header_first_then_large_ranges(tmp_path: Path) -> None:
    torch.manual_seed(0)
    big = {f"layers.{i}.w": torch.randn(1200, 1000) for i in range(8)}
    safetensors.save_file(big, tmp_path / "m.safetensors")
    with http_files(tmp_path) as files:
        url = f"{files.url}/m.safetensors"
        listed = inspect(url)
        assert len(listed.tensors) == 8
        assert sum(b - a for a, b in files.gets()) < 600_000
        files.asked.clear()
        report = scan(url)
        assert (
            comparable(report)["tensors"] == comparable(scan(tmp_path / "m.safetensors"))["tensors"]
        )
        data = [b - a for a, b in files.gets() if b - a > 1 << 20]
        size = (tmp_path / "m.safetensors").stat().st_size
        assert max(data) <= 8 << 20
        assert len(data) <= -(-size // (6 << 20)) + 1
        assert sum(b - a for a, b in files.gets()) < size + 1_000_000


def test_http_torch_archives_take_few_requests(tmp_path: Path) -> None:
    torch.save({f"w{i}": torch.full((90_000,), float(i)) for i in range(60)}, tmp_path / "m.pt")
    with http_files(tmp_path) as files:
        report = inspect(f"{files.url}/m.pt")
        assert len(report.tensors) == 60
        assert len(files.gets()) < 70
        files.asked.clear()
        assert scan(f"{files.url}/m.pt").status.value == "sound"
        assert len(files.gets()) < 75


def test_http_signatures_are_used_and_never_shown(tmp_path: Path) -> None:
    safetensors.save_file(planted(), tmp_path / "m.safetensors")
    with http_files(tmp_path) as files:
        report = scan(f"{files.url}/m.safetensors?X-Signature=secret")
        check_report(report, planted())
        assert "secret" not in report.to_json() + str(report)
        with pytest.raises(FileNotFoundError) as caught:
            scan(f"{files.url}/n.safetensors?X-Signature=secret")
        assert caught.value.filename == f"{files.url}/n.safetensors"


def test_http_without_ranges_is_said(tmp_path: Path) -> None:
    safetensors.save_file({"w": torch.ones(2, 3)}, tmp_path / "small.safetensors")
    safetensors.save_file(tensors(), tmp_path / "m.safetensors")
    with http_files(tmp_path, ranges=False) as files:
        assert len(inspect(f"{files.url}/small.safetensors").tensors) == 1
        report = scan(f"{files.url}/m.safetensors")
        assert report.status.value == "incomplete"
        (sentence,) = report.unread
        assert f"{files.url}/m.safetensors" in sentence
        assert "whole files only" in sentence
        torch.save(tensors(), tmp_path / "m.pt")
        with pytest.raises(UnsupportedFormatError, match=r"whole files only.*download"):
            scan(f"{files.url}/m.pt")


def test_http_failures_are_tried_again_and_named(tmp_path: Path) -> None:
    safetensors.save_file(planted(), tmp_path / "m.safetensors")
    with http_files(tmp_path) as files:
        files.failures = [503, 500]
        check_report(scan(f"{files.url}/m.safetensors", workers=1), planted())
        files.failures = [503] * 50
        with pytest.raises(OSError, match=r"503.*4 times") as caught:
            scan(f"{files.url}/m.safetensors")
        assert caught.value.filename == f"{files.url}/m.safetensors"
        files.failures = [403]
        with pytest.raises(PermissionError):
            scan(f"{files.url}/m.safetensors")
        # A number in a name is no status.
        safetensors.save_file(planted(), tmp_path / "412-precondition.safetensors")
        files.failures = [403]
        with pytest.raises(PermissionError):
            scan(f"{files.url}/412-precondition.safetensors")
    with pytest.raises(OSError, match="cannot be read"):
        scan("http://127.0.0.1:9/m.safetensors")


@pytest.mark.parametrize("tags", [True, False])
@pytest.mark.parametrize("act", ["replace", "shorten", "remove", "broken"])
def test_http_a_file_that_changes_under_the_scan(tmp_path: Path, act: str, tags: bool) -> None:
    path = tmp_path / "m.safetensors"
    safetensors.save_file(tensors(), path)
    with http_files(tmp_path, tags=tags) as files:

        def meddle(number: int) -> None:
            if number != 2:
                return
            if act == "replace":
                other = tmp_path / "other"
                other.write_bytes(path.read_bytes())
                os.utime(other, (1, 1))
                other.replace(path)
            elif act == "shorten":
                os.truncate(path, path.stat().st_size - 9_000_000)
            elif act == "remove":
                path.unlink()
            else:
                files.failures = [500] * 50

        files.before = meddle
        report = scan(f"{files.url}/m.safetensors", workers=1)
        assert report.status.value == "incomplete"
        assert report.metadata["changed"] or act == "broken"
        assert any("m.safetensors" in sentence for sentence in report.unread)


def test_http_index_and_folders(tmp_path: Path) -> None:
    safetensors.save_file(planted(), tmp_path / "a.safetensors")
    names = dict.fromkeys(planted(), "a.safetensors")
    (tmp_path / "m.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    for name, path in (("bad", "../a.safetensors"), ("odd", "%2e%2e/a.safetensors")):
        wrong = {**names, "clean_float32": path}
        (tmp_path / f"{name}.safetensors.index.json").write_text(json.dumps({"weight_map": wrong}))
    with http_files(tmp_path) as files:
        check_report(scan(f"{files.url}/m.safetensors.index.json"), planted())
        with pytest.raises(SchemaError, match="not plainly inside"):
            scan(f"{files.url}/bad.safetensors.index.json")
        with pytest.raises(SchemaError, match="a URL reads as something else"):
            scan(f"{files.url}/odd.safetensors.index.json")


def test_places() -> None:
    assert is_remote("simplecache::s3://a/b")
    assert not is_remote("file:///tmp/x")
    assert not is_remote("C.txt")
    assert place_of("file:///tmp/x") == Path("/tmp/x")  # noqa: S108 - never opened
    assert relative_name(Path("/a/b/c"), Path("/a")) == "b/c"
    with pytest.raises(ConfigurationError, match="nosuchthing"):
        place_of("nosuchthing://x/y")


def test_the_extra_is_named_where_it_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingDependencyError, match=r"s3://b/m.pt.*ml-systems-debugger\[remote\]"):
        scan("s3://b/m.pt")


def test_stretches_cover_the_plan(tmp_path: Path) -> None:
    safetensors.save_file(tensors(), tmp_path / "m.safetensors")
    plan = make_plan(read_tensors(open_checkpoint(tmp_path / "m.safetensors")))
    joined = stretches(plan, 8 << 20)
    assert all(isinstance(s, Stretch) and s.stop - s.start <= 8 << 20 for s in joined)
    assert [step for s in joined for step in s.steps] == plan.work
