"""Input that is broken: what could be read is kept, the rest is named with file and place."""

from __future__ import annotations

import gzip
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_systems_debugger.core import (
    IngestionError,
    SchemaError,
    SignalSet,
    UnsupportedFormatError,
)
from ml_systems_debugger.ingestion import MetricIngestor, find_runs, open_source


def written(tmp_path: Path, data: bytes, name: str = "run.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("data", [b"", b"\n", b" \n\n", gzip.compress(b"", mtime=0)])
def test_an_empty_file(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(SchemaError, match=r"run\.csv: the file is empty"):
        open_source(written(tmp_path, data))


def test_a_header_alone_holds_nothing(tmp_path: Path) -> None:
    found = open_source(written(tmp_path, b"step,loss\n"))
    assert len(found) == 0
    assert "run.csv" in str(found.metadata["source"])


def test_one_row(tmp_path: Path) -> None:
    found = open_source(written(tmp_path, b"step,loss\n5,0.5\n"))
    assert found.series[0].steps.tolist() == [5]


def test_unknown_columns_only(tmp_path: Path) -> None:
    found = open_source(written(tmp_path, b"foo,bar\n1,2\n3,4\n"))
    assert {one.name: one.values.tolist() for one in found.series} == {
        "foo": [1.0, 3.0],
        "bar": [2.0, 4.0],
    }


def test_no_header(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"run\.csv, line 1: .*no column names \(got '1,0.5'\)"):
        open_source(written(tmp_path, b"1,0.5\n2,0.4\n"))


def test_text_in_a_column_of_numbers_is_named_and_the_rest_read(tmp_path: Path) -> None:
    found = open_source(written(tmp_path, b"step,loss\n1,0.5\n2,oops\n3,0.3\n"))
    assert found.series[0].steps.tolist() == [1, 3]
    (said,) = found.unread
    for part in ("run.csv", "line 3", "'loss'", "'oops'"):
        assert part in said


def test_a_known_quantity_with_more_text_than_numbers_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"run\.csv, line 2, column 'loss'.*got 'high'") as error:
        open_source(written(tmp_path, b"step,loss\n1,high\n2,low\n3,0.5\n"))
    assert (error.value.line, error.value.column, error.value.value) == (2, "loss", "high")


def test_the_line_is_right_behind_blank_and_quoted_lines(tmp_path: Path) -> None:
    data = b'\n\nstep,loss,note\n1,2,a\n\n2,bad,"x\ny"\n3,bad,\n4,1,\n5,1,\n'
    (said,) = open_source(written(tmp_path, data)).unread
    assert "line 6: 'bad'" in said
    assert "line 8: 'bad'" in said


def test_a_column_of_words_is_text(tmp_path: Path) -> None:
    found = open_source(written(tmp_path, b"step,loss,phase name\n1,2,warm\n2,1,cool\n"))
    assert [one.kind.value for one in found.series] == ["scalar", "text"]
    assert not found.unread


def test_ragged_rows(tmp_path: Path) -> None:
    data = b"step,loss,acc\n1,0.5,0.1\n2,0.4\n3,0.3,0.2,9\n4,0.2,0.4\n"
    found = open_source(written(tmp_path, data))
    assert found.select("loss")[0].steps.tolist() == [1, 2, 4]
    assert found.select("accuracy")[0].steps.tolist() == [1, 4]
    (said,) = found.unread
    assert "run.csv" in said
    assert "line 3: 2 cells" in said
    assert "line 4: 4 cells" in said


def test_many_faults_are_counted_not_listed(tmp_path: Path) -> None:
    rows = b"".join(b"%d,%s\n" % (i, b"bad" if i % 3 == 0 else b"1") for i in range(3000))
    (said,) = open_source(written(tmp_path, b"step,loss\n" + rows)).unread
    assert "1,000 cells" in said
    assert len(said.replace(str(tmp_path), "")) < 300


def test_not_utf_8(tmp_path: Path) -> None:
    found = open_source(written(tmp_path, b"step,loss,note\n1,0.5,a\n2,0.4,caf\xe9\n3,0.3,b\n"))
    assert found.select("loss")[0].values.tolist() == [0.5, 0.4, 0.3]
    assert any("run.csv" in said and "line 3" in said and "UTF-8" in said for said in found.unread)


def test_a_gzip_that_is_cut_off_keeps_what_was_before(tmp_path: Path) -> None:
    rows = "".join(f"{i},{math.sin(i)}\n" for i in range(20_000))
    packed = gzip.compress(b"step,loss\n" + rows.encode())
    cut = len(packed) - 5_000
    found = open_source(written(tmp_path, packed[:cut], "run.csv.gz"))
    assert 10_000 < len(found.series[0]) < 20_000
    assert any("run.csv.gz" in said and f"cut off at byte {cut}" in said for said in found.unread)


def test_a_gzip_that_is_damaged_keeps_what_was_before(tmp_path: Path) -> None:
    rows = "".join(f"{i},{math.sin(i)}\n" for i in range(50_000))
    packed = bytearray(gzip.compress(b"step,loss\n" + rows.encode()))
    packed[len(packed) * 3 // 4] ^= 0xFF
    found = open_source(written(tmp_path, bytes(packed), "run.csv.gz"))
    assert found.unread
    assert "run.csv.gz" in found.unread[-1]
    assert len(found.series[0]) > 10_000


def test_a_gzip_of_which_nothing_is_left(tmp_path: Path) -> None:
    path = written(tmp_path, gzip.compress(b"step,loss\n1,2\n")[:11], "run.csv.gz")
    with pytest.raises(SchemaError, match=r"run\.csv\.gz: nothing to read.*cut off at byte 11"):
        open_source(path)


def test_gzip_members_behind_each_other(tmp_path: Path) -> None:
    data = gzip.compress(b"step,loss\n1,2\n") + gzip.compress(b"2,1\n") + bytes(512)
    found = open_source(written(tmp_path, data))
    assert found.series[0].values.tolist() == [2.0, 1.0]
    assert not found.unread


@pytest.mark.parametrize("magic", [b"BZh9", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"])
def test_other_compression_is_said(tmp_path: Path, magic: bytes) -> None:
    with pytest.raises(UnsupportedFormatError, match="decompress it first"):
        open_source(written(tmp_path, magic + bytes(100)))


def test_ten_thousand_metrics(tmp_path: Path) -> None:
    names = ",".join(f"grad_norm/layer.{i}" for i in range(10_000))
    cells = ",".join(map(str, range(10_000)))
    found = open_source(written(tmp_path, f"step,{names}\n1,{cells}\n2,{cells}\n".encode()))
    assert len(found.series) == 10_000
    assert found.series[9_999].key.layer == "layer.9999"
    assert found.series[9_999].values.tolist() == [9999.0, 9999.0]


def test_json_lines_with_damage(tmp_path: Path) -> None:
    data = (
        b'{"step": 1, "loss": 2}\n{"step": 2, "lo\n[1]\n{"step": 3, "loss": 1}\n'
        b'{"step": 4, "loss": 0}\n{"step": 5, "l'
    )
    found = open_source(written(tmp_path, data, "run.jsonl"))
    assert found.series[0].steps.tolist() == [1, 3, 4]
    (said,) = found.unread
    assert "3 lines" in said
    for place in ("run.jsonl", "line 2", "line 3", "line 6"):
        assert place in said


def test_json_that_is_mostly_broken(tmp_path: Path) -> None:
    data = b'{"loss": 2}\n{"a\n{"b\n'
    with pytest.raises(SchemaError, match=r"run\.jsonl, line 2"):
        open_source(written(tmp_path, data, "run.jsonl"))


def test_a_json_document_that_is_broken(tmp_path: Path) -> None:
    data = b'{\n"loss": [1, 2,\n  oops]\n}'
    with pytest.raises(SchemaError, match=r"run\.json, line 3: no valid JSON"):
        open_source(written(tmp_path, data, "run.json"))


LONG = b"1" * 5000


@pytest.mark.parametrize(
    "data",
    [
        b'{"global_step": 1, "log_history": [{"step": 1, "loss": ' + LONG + b"}]}",
        b'{"step": 1, "loss": ' + LONG + b"}",
        b'{"version": "2", "pg_config": {}, "pg_status": {}, "entries": [' + LONG + b"]}",
    ],
)
def test_a_whole_number_of_thousands_of_digits(data: bytes) -> None:
    with pytest.raises(SchemaError, match="thousands of digits"):
        open_source(data)


def test_a_line_with_a_number_of_thousands_of_digits_costs_that_line() -> None:
    found = open_source(b'{"step": 1, "loss": 1}\n{"step": 2, "loss": ' + LONG + b"}\n" * 1)
    assert found.series[0].values.tolist() == [1.0]
    assert "line 2: a whole number of thousands of digits" in found.unread[0]


@pytest.mark.parametrize(
    ("data", "looks"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "PNG"),
        (b"\x7fELF" + bytes(100), "program"),
        (bytes(range(256)) * 20, "binary data"),
        (b"The quick brown fox.\nJumps over.\n", "text without"),
        (b'{"name": {"a": "b"}}\n'.replace(b'{"name', b'{\n"name'), "JSON"),
    ],
)
def test_unknown_content_says_what_it_looks_like(tmp_path: Path, data: bytes, looks: str) -> None:
    with pytest.raises(UnsupportedFormatError, match=rf"run\.dat.*{looks}"):
        open_source(written(tmp_path, data, "run.dat"))


def test_a_line_without_end_is_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    from ml_systems_debugger.ingestion import _bytes

    monkeypatch.setattr(_bytes, "_BLOCK", 1 << 16)
    monkeypatch.setattr(_bytes, "MAX_LINE", 1 << 18)
    with pytest.raises(SchemaError, match="a line longer"):
        MetricIngestor().ingest(b"step,loss\n" + b"1," + b"9" * (1 << 20))


def test_a_missing_file_and_a_folder_with_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nobody.csv"):
        open_source(tmp_path / "nobody.csv")
    (tmp_path / "empty").mkdir()
    assert find_runs(tmp_path / "empty") == []
    with pytest.raises(UnsupportedFormatError, match="empty: no run data"):
        open_source(tmp_path / "empty")


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path) -> None:
    path = written(tmp_path, b"step,loss\n1,2\n")
    path.chmod(0)
    with pytest.raises(PermissionError, match=r"run\.csv"):
        open_source(path)
    with pytest.raises(PermissionError, match=r"run\.csv"):
        find_runs(tmp_path)


def test_a_read_that_fails_names_its_source() -> None:
    class Failing:
        name = "tape.csv"

        def read(self, size: int = -1) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match=r"tape\.csv"):
        open_source(Failing())


def assert_read_or_refused(data: bytes) -> None:
    refusal = ""
    found = None
    try:
        found = open_source(data)
    except IngestionError as error:
        refusal = str(error)
    assert isinstance(found, SignalSet) or "<bytes>" in refusal


@given(st.binary(max_size=400), st.integers(0, 3))
def test_no_bytes_raise_anything_but_our_errors(data: bytes, kind: int) -> None:
    head = [b"", b"step,loss\n1,2\n", b'{"loss": 1}\n', b"step 1: loss 2\n"][kind]
    assert_read_or_refused(head + data)


@given(st.data())
def test_no_damage_to_a_gzip_raises_anything_but_our_errors(data: st.DataObject) -> None:
    packed = bytearray(gzip.compress(b"step,loss\n" + b"1,2\n2,3\n" * 40))
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(2, len(packed) - 1))] = data.draw(st.integers(0, 255))
    assert_read_or_refused(bytes(packed))
