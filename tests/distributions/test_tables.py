"""The same table from every library and file gives the same profile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml_systems_debugger import (
    MissingDependencyError,
    SchemaError,
    UnsupportedFormatError,
    compare_distributions,
)
from ml_systems_debugger.distributions import Profile, read_chunks, tables

ROWS: dict[str, list[Any]] = {
    "x": [1.5, None, 3.0, -2.0],
    "n": [1, 2, 3, 4],
    "w": ["a", None, "b", "a"],
    "flag": [True, False, True, True],
}


def check(data: Any) -> None:
    found = Profile.of(data).features
    assert list(found) == list(ROWS)
    x, n, w, flag = found.values()
    assert (x.kind, x.count, x.missing, x.min, x.max) == ("numeric", 4, 1, -2.0, 3.0)
    assert (n.kind, n.mean) == ("numeric", 2.5)
    assert (w.kind, w.missing, dict(w.counts)) == ("categorical", 1, {"a": 2, "b": 1})
    assert flag.kind == "categorical"
    assert sorted(word.lower() for word in flag.counts) == ["false", "true"]


def csv_text() -> str:
    rows = zip(*ROWS.values(), strict=True)
    lines = [",".join(ROWS), *(",".join("" if v is None else str(v) for v in r) for r in rows)]
    return "\n".join(lines) + "\n"


def test_a_mapping_of_lists() -> None:
    check(ROWS)


def test_pandas() -> None:
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    check(pd.DataFrame(ROWS))
    check(pd.DataFrame(ROWS).convert_dtypes())
    check(pd.DataFrame(ROWS).astype({"w": "category"}))


def test_polars() -> None:
    pl = pytest.importorskip("polars", reason="polars is not installed")
    check(pl.DataFrame(ROWS))


def test_arrow_and_its_files(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    import pyarrow.feather as feather
    import pyarrow.parquet as pq

    table = pa.table(ROWS)
    check(table)
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=2)
    check(tmp_path / "t.parquet")
    feather.write_feather(table, str(tmp_path / "t.feather"), compression="uncompressed")
    check(tmp_path / "t.feather")


@pytest.mark.parametrize("arrow", [True, False])
def test_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrow: bool) -> None:
    if arrow:
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    else:
        monkeypatch.setitem(__import__("sys").modules, "pyarrow.csv", None)
    path = tmp_path / "t.csv"
    path.write_text(csv_text(), encoding="utf-8")
    check(str(path))


def test_csv_whole_numbers_that_turn_into_fractions(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("x\n" + "1\n" * 1_000_000 + "2.5\n", encoding="utf-8")
    assert Profile.of(path).features["x"].max == 2.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,y\n1,2\n3\n", r"t\.csv, line 3: 1 cells where the header has 2"),
        ("x,x\n1,2\n", r"t\.csv, line 1: the first line names every column once"),
        ("", "an empty file"),
    ],
)
def test_damaged_csv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.csv", None)
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SchemaError, match=message):
        Profile.of(path)


def test_words_after_numbers_in_a_csv_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.csv", None)
    monkeypatch.setattr(tables, "_ROWS", 2)
    path = tmp_path / "t.csv"
    path.write_text("x\n1\n2\nabc\n", encoding="utf-8")
    with pytest.raises(SchemaError, match=r"column 'x': a column of numbers.*abc"):
        Profile.of(path)


def test_a_damaged_parquet_file(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    path = tmp_path / "t.parquet"
    path.write_bytes(b"PAR1" + b"\x00" * 40)
    with pytest.raises(SchemaError, match=r"t\.parquet: a damaged file"):
        Profile.of(path)


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    path = tmp_path / "t.parquet"
    path.write_bytes(b"PAR1" + b"\x00" * 40)
    with pytest.raises(MissingDependencyError, match="needs pyarrow"):
        Profile.of(path)


def test_arrays(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(100, 3))
    assert list(Profile.of(values).features) == ["column_0", "column_1", "column_2"]
    assert list(Profile.of(values[:, 0]).features) == ["value"]
    np.save(tmp_path / "t.npy", values)
    assert list(Profile.of(tmp_path / "t.npy").features) == ["column_0", "column_1", "column_2"]
    np.savez(tmp_path / "t.npz", a=values[:, 0], b=values)
    found = Profile.of(tmp_path / "t.npz").features
    assert (found["a"].kind, found["b"].kind) == ("numeric", "embedding")
    record = np.zeros(4, [("x", "f4"), ("y", "i8")])
    assert list(Profile.of(record).features) == ["x", "y"]


def test_a_list_of_vectors_is_an_embedding() -> None:
    found = Profile.of({"v": [[1.0, 2.0], None, [3.0, 4.0]]}).features["v"]
    assert (found.kind, found.count, found.missing) == ("embedding", 3, 1)
    with pytest.raises(SchemaError, match="vectors of one length"):
        Profile.of({"v": [[1.0, 2.0], [3.0]]})


def test_dates_are_numbers() -> None:
    days = np.array(["2026-01-01", "NaT", "2026-01-03"], "datetime64[D]")
    found = Profile.of({"day": days}).features["day"]
    assert (found.kind, found.missing, found.max - found.min) == ("numeric", 1, 2 * 86400)


def test_what_is_no_table_is_refused() -> None:
    with pytest.raises(UnsupportedFormatError, match="a table is a mapping"):
        list(read_chunks(object()))
    with pytest.raises(SchemaError, match="different lengths"):
        list(read_chunks({"a": [1.0], "b": [1.0, 2.0]}))
    with pytest.raises(SchemaError, match=r"\[rows, features\]"):
        list(read_chunks(np.zeros((2, 2, 2))))


def test_frames_and_arrays_may_be_mixed() -> None:
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    g = np.random.default_rng(0)
    a, b = g.normal(size=2000), g.normal(1, 1, 2000)
    report = compare_distributions(pd.DataFrame({"x": a}), {"x": b})
    assert [one.kind for one in report.skewed] == ["shift"]
