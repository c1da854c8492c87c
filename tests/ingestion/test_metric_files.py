"""Metrics in files: cells, delimiters, encodings, JSON lines and documents."""

from __future__ import annotations

import gzip
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from metric_series import csv_of, read

from ml_systems_debugger.core import (
    SeriesKind,
)
from ml_systems_debugger.ingestion import MetricIngestor

NAN, INF = math.nan, math.inf


class TestFiles:
    def test_empty_cells_were_not_logged(self) -> None:
        source = csv_of("step,loss,acc", "1,0.5,", "2,,0.25", "3,nan,inf", "4,NA,null")
        found = read(source)
        assert found["loss"][0] == [1, 3]
        assert math.isnan(found["loss"][1][1])
        assert found["accuracy"] == ([2, 3], [0.25, INF])

    @pytest.mark.parametrize(
        ("text", "value"),
        [("nan", NAN), ("NaN", NAN), ("-nan", NAN), ("inf", INF), ("+Inf", INF), ("-inf", -INF),
         ("Infinity", INF), ("-INFINITY", -INF), ("1.#INF", INF), ("-1.#IND", NAN),
         (" 0.5 ", 0.5), ("True", 1.0), ("1E5", 1e5), (".5", 0.5), ("5.", 5.0)],
    )  # fmt: skip
    def test_spellings_of_numbers(self, text: str, value: float) -> None:
        (got,) = read(csv_of("step,loss", f"1,{text}"))["loss"][1]
        assert got == value or (math.isnan(got) and math.isnan(value))

    @pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
    @pytest.mark.parametrize("ending", ["\n", "\r\n"])
    def test_delimiters_and_line_ends(self, delimiter: str, ending: str) -> None:
        text = ending.join(["step,loss,lr", "1,2,3", "4,5,6"]).replace(",", delimiter)
        assert read(text.encode()) == {"loss": ([1, 4], [2.0, 5.0]), "lr": ([1, 4], [3.0, 6.0])}

    def test_quoted_cells(self) -> None:
        source = b'step,"loss, mean",note\n1,"2,000.5","two\nlines"\n2,3,"a ""b"""\n'
        signals = MetricIngestor().ingest(source)
        assert signals.select("loss, mean")[0].values.tolist() == [2000.5, 3.0]
        assert signals.select("note", kind=SeriesKind.TEXT)[0].values.tolist() == [
            "two\nlines", 'a "b"',
        ]  # fmt: skip

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
    def test_encodings(self, encoding: str) -> None:
        assert read("step,loss,größe\n1,2,3\n".encode(encoding)) == {
            "loss": ([1], [2.0]),
            "größe": ([1], [3.0]),
        }

    def test_the_header_again_is_a_logger_that_was_started_again(self) -> None:
        signals = MetricIngestor().ingest(csv_of("step,loss", "1,2", "step,loss", "2,1"))
        assert signals.series[0].values.tolist() == [2.0, 1.0]
        assert not signals.unread

    def test_two_columns_of_one_name_stay_two(self) -> None:
        assert read(csv_of("step,loss,loss", "1,2,3")) == {
            "loss": ([1], [2.0]),
            "loss (2)": ([1], [3.0]),
        }

    def test_the_index_of_a_frame_is_no_measurement(self) -> None:
        assert list(read(csv_of(",step,loss", "0,5,1", "1,6,2"))) == ["loss"]
        assert list(read(csv_of(",step,loss", "9,5,1", "1,6,2"))) == ["column 1", "loss"]

    def test_per_step_loss_and_evaluated_loss_in_one_file(self) -> None:
        source = csv_of(
            "global_step,loss,train/loss,validation/loss", "0,3,,", "1,,2.5,2.6", "2,2,,"
        )
        assert read(source) == {
            "loss": ([0, 2], [3.0, 2.0]),
            "train:loss": ([1], [2.5]),
            "val_loss": ([1], [2.6]),
        }

    def test_json_lines(self) -> None:
        source = b'{"step": 1, "loss": NaN}\n\n{"step": 2, "loss": -Infinity, "x": {"y": 1}}\n'
        found = read(source)
        assert math.isnan(found["loss"][1][0])
        assert found["loss"][1][1] == -INF
        assert found["x/y"] == ([2], [1.0])

    @pytest.mark.parametrize("indent", [None, 2])
    @pytest.mark.parametrize(
        "document", [{"loss": [3, 2, 1], "lr": [1, 1, None]}, [{"loss": 3}, {"loss": 2}]]
    )
    def test_json_documents(self, document: Any, indent: int | None) -> None:
        assert read(json.dumps(document, indent=indent).encode()) == read(document)

    def test_what_stands_beside_the_columns_of_a_document_is_no_measurement(self) -> None:
        data = b'{"train_losses": [3, 2], "config": {"lr": 0.1}, "names": ["a"]}'
        signals = MetricIngestor().ingest(data)
        assert signals.select("loss", split="train")[0].values.tolist() == [3.0, 2.0]
        assert signals.metadata["facts"] == {"config": {"lr": 0.1}}
        assert signals.unread == ("<bytes>: 'names' is no list of numbers",)

    @pytest.mark.parametrize("wrap", [bytes, gzip.compress, io.BytesIO])
    def test_bytes_gzip_and_file_objects(self, wrap: Callable[[bytes], Any]) -> None:
        assert read(wrap(csv_of("step,loss", "1,2"))) == {"loss": ([1], [2.0])}

    def test_text_files_and_paths(self, tmp_path: Path) -> None:
        path = tmp_path / "m.csv"
        path.write_bytes(csv_of("step,loss", "1,2"))
        assert read(path) == read(str(path)) == {"loss": ([1], [2.0])}
        with path.open() as file:
            assert read(file) == {"loss": ([1], [2.0])}
            assert not file.closed

    def test_many_blocks_give_what_one_block_gives(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from ml_systems_debugger.ingestion import _bytes

        rows = [f"{i},{i / 7!r},{'' if i % 3 else i}" for i in range(3000)]
        source = csv_of("step,loss,acc", *rows)
        lines = b"".join(b'{"step": %d, "loss": %d}\n' % (i, i * i) for i in range(3000))
        whole, whole_lines = read(source), read(lines)
        monkeypatch.setattr(_bytes, "_BLOCK", 1000)
        monkeypatch.setattr(_bytes, "_READ", 333)
        assert read(source) == whole
        assert read(io.BytesIO(gzip.compress(source))) == whole
        assert read(lines) == whole_lines

    @given(
        st.lists(
            st.tuples(st.one_of(st.none(), st.floats()), st.one_of(st.none(), st.floats(width=32))),
            min_size=1,
        )
    )
    def test_csv_round_trip(self, rows: list[tuple[float | None, float | None]]) -> None:
        lines = [f"{i}," + ",".join("" if v is None else repr(v) for v in row)
                 for i, row in enumerate(rows)]  # fmt: skip
        found = MetricIngestor().ingest(csv_of("step,loss,lr", *lines))
        for at, name in enumerate(("loss", "lr")):
            expected = [(i, repr(row[at])) for i, row in enumerate(rows) if row[at] is not None]
            got = [
                (s, repr(v))
                for one in found.select(name)
                for s, v in zip(one.steps.tolist(), one.values.tolist(), strict=True)
            ]
            assert got == expected
