"""Who reads a source is decided by its content; third parties take part."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ml_systems_debugger.core import (
    BaseIngestor,
    Signal,
    SignalSet,
    UnsupportedFormatError,
    ingestors,
)
from ml_systems_debugger.ingestion import find_runs, open_source

CSV = b"step,loss\n1,0.5\n2,0.25\n"
LOG = b"step 1: loss 0.5\nstep 2: loss 0.25\n"


def values(found: SignalSet) -> list[float]:
    return [float(v) for v in found.select("loss")[0].values]


@pytest.mark.parametrize("data", [CSV, LOG, b'{"loss": 0.5}\n{"loss": 0.25}\n'])
@pytest.mark.parametrize("name", ["x.csv", "x.log", "x.jsonl", "x", "x.bin"])
def test_content_decides_not_the_name(tmp_path: Path, data: bytes, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    assert values(open_source(path)) == values(open_source(data)) == [0.5, 0.25]


def test_a_set_comes_back_as_it_is() -> None:
    signals = SignalSet()
    assert open_source(signals) is signals


@pytest.mark.parametrize("wrap", [list, tuple, iter])
def test_signals(wrap: Any) -> None:
    given = [Signal("loss", 0.5, step=1), Signal("loss", 0.25, step=2)]
    assert values(open_source(wrap(given))) == [0.5, 0.25]


def test_a_file_object_that_cannot_seek() -> None:
    class Pipe(io.RawIOBase):
        def __init__(self, data: bytes) -> None:
            self.parts = [data[i : i + 3] for i in range(0, len(data), 3)]

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            return self.parts.pop(0) if self.parts else b""

    assert values(open_source(Pipe(CSV))) == [0.5, 0.25]


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(CSV)))
    found = open_source("-")
    assert values(found) == [0.5, 0.25]
    assert found.metadata["source"] == "<stdin>"


def test_the_runs_of_a_folder(tmp_path: Path) -> None:
    files = {
        "b/run.csv": CSV, "a.log": LOG, "c/deep/er/x.jsonl": b'{"loss": 1}\n', "README.md": LOG,
        "train.py": b"step = 1\nloss = 2\n", ".hidden.csv": CSV, ".git/x.csv": CSV,
        "empty.csv": b"",
        "notes.txt": b"nothing here\n", "picture.png": b"\x89PNG" + bytes(99),
        "late.txt": b"words\n" * 20_000 + LOG, "config.json": b'{\n"lr": 0.1\n}\n',
        "old.csv.xz": b"\xfd7zXZ\x00" + bytes(99),
    }  # fmt: skip
    for name, data in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    names = [str(run.relative_to(tmp_path)) for run in find_runs(tmp_path)]
    assert names == ["a.log", "b/run.csv", "c/deep/er/x.jsonl", "late.txt"]
    assert find_runs(tmp_path / "a.log") == [tmp_path / "a.log"]
    assert values(open_source(tmp_path / "b")) == [0.5, 0.25]
    with pytest.raises(UnsupportedFormatError, match=r"a folder of 4 runs \(a.log"):
        open_source(tmp_path)


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "run.csv").write_bytes(CSV)
    (tmp_path / "again").symlink_to(tmp_path)
    assert find_runs(tmp_path) == [tmp_path / "run.csv"]


@pytest.fixture
def third_party(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[BaseIngestor]]:
    known = dict(ingestors.items())

    class Vendor(BaseIngestor):
        def ingest(self, source: Any) -> list[Signal]:
            if isinstance(source, frozenset):
                return [Signal("loss", v, step=i) for i, v in enumerate(sorted(source))]
            data = source.read() if hasattr(source, "read") else Path(source).read_bytes()
            return [Signal("loss", float(c), step=i) for i, c in enumerate(data[4:])]

        def validate_schema(self, data: Any) -> bool:
            return isinstance(data, frozenset)

        def sniff(self, head: bytes, name: str) -> float:
            return 1.0 if head.startswith(b"VNDR") else 0.0

    monkeypatch.setattr(ingestors, "items", lambda: {**known, "vendor": Vendor})
    return Vendor


def test_a_third_party_reads_its_own(tmp_path: Path, third_party: type[BaseIngestor]) -> None:
    path = tmp_path / "run.vndr"
    path.write_bytes(b"VNDR\x01\x02")
    assert values(open_source(path)) == [1.0, 2.0]
    assert values(open_source(io.BytesIO(b"VNDR\x03"))) == [3.0]
    assert values(open_source(frozenset({2.0, 1.0}))) == [1.0, 2.0]
    assert find_runs(tmp_path) == [path]


@pytest.mark.parametrize("data", [5, object(), {1, 2}])
def test_what_nobody_reads(data: Any) -> None:
    with pytest.raises(UnsupportedFormatError, match="expected a path"):
        open_source(data)
