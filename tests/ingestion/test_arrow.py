"""Parquet and Arrow files: null is not NaN, damage is named."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import pytest

from ml_systems_debugger.core import MissingDependencyError, SchemaError, UnsupportedFormatError
from ml_systems_debugger.ingestion import ArrowIngestor, find_runs, open_source

pyarrow = pytest.importorskip("pyarrow")


def files(tmp_path: Path) -> list[Path]:
    from pyarrow import feather, parquet

    table = pyarrow.table({"step": [5, 6, 7], "loss": [1.0, math.nan, None]})
    parquet.write_table(table, tmp_path / "run.parquet")
    feather.write_feather(table, tmp_path / "run.feather", compression="uncompressed")
    return sorted(tmp_path.iterdir())


def test_round_trip(tmp_path: Path) -> None:
    paths = files(tmp_path)
    assert find_runs(tmp_path) == paths
    for path in paths:
        for source in (path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes())):
            (loss,) = open_source(source).series
            assert loss.steps.tolist() == [5, 6]
            assert loss.values[0] == 1.0
            assert math.isnan(loss.values[1])


def test_a_mapping(tmp_path: Path) -> None:
    for path in files(tmp_path):
        (loss,) = open_source(path, mapping={"loss": "val_loss"}).series
        assert loss.key.split == "val"


def test_damage(tmp_path: Path) -> None:
    for path in files(tmp_path):
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(SchemaError, match=rf"{path.name}: a damaged file"):
            open_source(path)


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = files(tmp_path)[0]
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match="needs pyarrow"):
        open_source(path)


@pytest.mark.parametrize("data", [b"step,loss\n1,2\n", 5])
def test_other_content(data: Any) -> None:
    with pytest.raises(UnsupportedFormatError):
        ArrowIngestor().ingest(data)


def test_a_footer_that_is_damaged_is_said(tmp_path: Path) -> None:
    # Found by fuzzing: pyarrow raises an OSError of its own here.
    path = tmp_path / "m.parquet"
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"step": [1, 2], "loss": [0.5, 0.2]}), path)
    data = bytearray(path.read_bytes())
    footer = int.from_bytes(data[-8:-4], "little")
    data[-8 - footer : -8] = bytes(b ^ 0xFF for b in data[-8 - footer : -8])
    path.write_bytes(data)
    with pytest.raises(SchemaError, match="damaged"):
        open_source(path)
