"""Metrics in memory and in files: names, steps, what was logged and what was not."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from metric_series import csv_of, read

from ml_systems_debugger.core import (
    SchemaError,
    SeriesKey,
    SeriesKind,
    SignalSet,
    UnsupportedFormatError,
)
from ml_systems_debugger.ingestion import MetricIngestor, open_source

NAN, INF = math.nan, math.inf


class TestArrays:
    def test_float64_arrays_are_shared_not_copied(self) -> None:
        loss, norm = np.random.default_rng(0).random((2, 10_000))
        signals = MetricIngestor().ingest({"loss": loss, "grad_norm": norm})
        assert np.shares_memory(signals.series[0].values, loss)
        assert np.shares_memory(signals.series[1].values, norm)
        assert np.shares_memory(signals.series[0].steps, signals.series[1].steps)
        assert not signals.series[0].values.flags.writeable
        loss[3] = 7.0  # still the caller's own
        assert signals.series[0].values[3] == 7.0

    @pytest.mark.parametrize("dtype", ["float16", "float32", "int8", "uint32", "int64", "bool"])
    def test_other_numbers_become_float64(self, dtype: str) -> None:
        found = MetricIngestor().ingest({"loss": np.array([1, 0, 1], dtype)})
        assert found.series[0].values.dtype == np.float64
        assert found.series[0].values.tolist() == [1.0, 0.0, 1.0]

    def test_nan_in_an_array_is_recorded(self) -> None:
        found = read({"loss": np.array([1.0, NAN, INF])})
        assert math.isnan(found["loss"][1][1])
        assert found["loss"][1][2] == INF

    def test_none_in_a_list_was_not_logged(self) -> None:
        assert read({"loss": [1.0, 0.5, 0.2], "val_loss": [None, 0.7, None]}) == {
            "loss": ([0, 1, 2], [1.0, 0.5, 0.2]),
            "val_loss": ([1], [0.7]),
        }

    def test_the_step_column_gives_the_steps(self) -> None:
        assert read({"global_step": [10, 20], "loss": [1, 2]}) == {"loss": ([10, 20], [1.0, 2.0])}

    def test_columns_of_different_lengths_are_refused(self) -> None:
        with pytest.raises(SchemaError, match="'loss' has 3, 'val_loss' has 1"):
            MetricIngestor().ingest({"loss": [1, 2, 3], "val_loss": [1]})

    def test_a_mapping_of_numbers_is_one_row(self) -> None:
        assert read({"step": 7, "loss": 0.5}) == {"loss": ([7], [0.5])}

    def test_masked_arrays(self) -> None:
        masked = np.ma.MaskedArray([1.0, 2.0, 3.0], [False, True, False])
        assert read({"loss": masked}) == {"loss": ([0, 2], [1.0, 3.0])}

    def test_arrays_per_step_are_held_by_reference(self) -> None:
        gradients = [np.ones(3), np.full(3, NAN)]
        found = MetricIngestor().ingest({"gradient/w": gradients})
        assert found.series[0].key == SeriesKey("gradient", layer="w", kind=SeriesKind.ARRAY)
        assert found.series[0].values[1] is gradients[1]

    def test_record_arrays(self) -> None:
        records = np.array([(1, 0.5), (2, 0.25)], dtype=[("step", "i4"), ("loss", "f4")])
        assert read(records) == {"loss": ([1, 2], [0.5, 0.25])}

    def test_digests_keep_their_64_bits(self) -> None:
        digests = [2**64 - 1, 2**63 + 1]
        for source in (
            {"param_digest": digests},
            {"param_digest": np.array(digests, np.uint64)},
            [{"param_digest": d} for d in digests],
            csv_of("step,param_digest", f"0,{digests[0]}", f"1,{hex(digests[1])}"),
        ):
            one = MetricIngestor().ingest(source).series[0]
            assert one.kind is SeriesKind.DIGEST
            assert one.values.tolist() == digests

    @pytest.mark.parametrize("data", [np.arange(3.0), 5, object(), (1, 2), [1, 2], ["loss"]])
    def test_what_is_no_table_is_refused(self, data: Any) -> None:
        with pytest.raises(UnsupportedFormatError):
            MetricIngestor().ingest(data)


class TestRows:
    def test_rows_may_hold_different_names(self) -> None:
        rows = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5, "eval_loss": 3}, {"step": 3}]
        assert read(rows) == {"loss": ([1, 2], [2.0, 1.5]), "eval_loss": ([2], [3.0])}

    def test_nested_mappings_give_names_with_a_slash(self) -> None:
        rows = [{"step": 5, "grad_norm": {"a.w": 1.0, "b.w": NAN}, "train": {"loss": 0.5}}]
        found = read(rows)
        assert found["grad_norm/a.w"] == ([5], [1.0])
        assert math.isnan(found["grad_norm/b.w"][1][0])
        assert found["train:loss"] == ([5], [0.5])

    def test_text_is_parsed_as_numbers(self) -> None:
        found = read([{"loss": "nan"}, {"loss": "-Infinity"}, {"loss": "1e-3"}, {"loss": "2,500"}])
        assert math.isnan(found["loss"][1][0])
        assert found["loss"][1][1:] == [-INF, 0.001, 2500.0]

    def test_numpy_and_other_scalars(self) -> None:
        rows = [{"loss": np.float32(0.5), "ok": True}, {"loss": np.array(0.25), "ok": np.bool_(0)}]
        assert read(rows) == {"loss": ([0, 1], [0.5, 0.25]), "ok": ([0, 1], [1.0, 0.0])}

    def test_a_number_beyond_the_largest_float_is_infinite(self) -> None:
        assert read([{"loss": 10**400}]) == {"loss": ([0], [INF])}

    def test_values_of_no_use_are_named(self) -> None:
        found = MetricIngestor().ingest([{"loss": 1.0}, {"loss": {1, 2}}])
        assert found.series[0].values.tolist() == [1.0]
        assert "row 1" in found.unread[0]
        assert "set" in found.unread[0]

    def test_a_later_name_stands_at_its_own_rows(self) -> None:
        rows = [{"loss": float(i)} for i in range(5)] + [{"acc": 1.0}] + [{"loss": 9.0}]
        assert read(rows) == {
            "loss": ([0, 1, 2, 3, 4, 6], [0, 1, 2, 3, 4, 9]),
            "accuracy": ([5], [1]),
        }

    @given(
        st.lists(
            st.dictionaries(
                st.sampled_from(["loss", "val_loss", "x", "grad_norm/a"]),
                st.one_of(st.none(), st.floats(width=64), st.integers(-(2**70), 2**70)),
            ),
            max_size=20,
        )
    )
    def test_every_number_is_there_and_no_other(self, rows: list[dict[str, Any]]) -> None:
        found = MetricIngestor().ingest([{"step": i, **row} for i, row in enumerate(rows)])
        expected = sorted(
            (name, i, repr(float(v))) for i, row in enumerate(rows) for name, v in row.items()
            if v is not None
        )  # fmt: skip
        got = sorted(
            (one.source_name or str(one.key), step, repr(value))
            for one in found.series
            for step, value in zip(one.steps.tolist(), one.values.tolist(), strict=True)
        )
        assert got == expected
        assert not found.unread


class TestLongForm:
    def test_names_values_and_replicas_in_columns(self) -> None:
        found = read(
            csv_of("step,metric,value,rank", "1,loss,0.5,0", "1,loss,0.6,1", "2,loss,0.4,0",
                   "2,grad_norm/w,3,1", "2,loss,nan,1")
        )  # fmt: skip
        assert found["loss [replica 0]"] == ([1, 2], [0.5, 0.4])
        assert found["loss [replica 1]"][0] == [1, 2]
        assert math.isnan(found["loss [replica 1]"][1][1])
        assert found["grad_norm/w [replica 1]"] == ([2], [3.0])

    def test_without_steps_every_series_counts_its_own(self) -> None:
        rows = [
            {"name": "loss", "value": 1},
            {"name": "lr", "value": 2},
            {"name": "loss", "value": 3},
        ]
        assert read(rows) == {"loss": ([0, 1], [1.0, 3.0]), "lr": ([0], [2.0])}

    def test_a_column_called_name_alone_is_text(self) -> None:
        found = MetricIngestor().ingest([{"name": "a", "loss": 1.0}, {"name": "b", "loss": 2.0}])
        assert [one.kind.value for one in found.series] == ["text", "scalar"]

    def test_two_names_of_one_meaning_stay_apart(self) -> None:
        rows = [{"tag": "lr", "value": 1}, {"tag": "learning_rate", "value": 2}]
        assert read(rows) == {"lr": ([0], [1.0]), "learning_rate": ([0], [2.0])}


class TestPlaces:
    def test_layers_replicas_runs_and_splits_in_columns(self) -> None:
        rows = [
            {"step": 1, "layer_name": "a", "rank": "worker-3", "split": "validation", "run": "r",
             "loss": 1.0},
        ]  # fmt: skip
        (one,) = MetricIngestor().ingest(rows).series
        assert one.key == SeriesKey("loss", "val", "a", "worker-3", "r")

    def test_replicas_count_their_rows_where_there_is_no_step(self) -> None:
        source = csv_of("rank,loss", "0,1", "1,2", "0,3", "1,4", "1,5")
        assert read(source) == {
            "loss [replica 0]": ([0, 1], [1.0, 3.0]),
            "loss [replica 1]": ([0, 1, 2], [2.0, 4.0, 5.0]),
        }

    def test_text_that_looks_like_a_number_stays_as_it_is_written(self) -> None:
        source = csv_of("step,layer_name,grad_norm", "1,010,1", "1,nan,2", "1,1e3,3", "2,010,4")
        found = read(source)
        assert found == {
            "grad_norm/010": ([1, 2], [1.0, 4.0]),
            "grad_norm/nan": ([1], [2.0]),
            "grad_norm/1e3": ([1], [3.0]),
        }

    def test_sparse_columns_by_replica(self) -> None:
        source = csv_of("step,rank,loss,acc", "1,0,1,", "1,1,2,9", "2,0,,8", "2,1,4,7")
        assert read(source) == {
            "loss [replica 0]": ([1], [1.0]),
            "loss [replica 1]": ([1, 2], [2.0, 4.0]),
            "accuracy [replica 0]": ([2], [8.0]),
            "accuracy [replica 1]": ([1, 2], [9.0, 7.0]),
        }

    @pytest.mark.parametrize(
        ("cells", "seconds"),
        [
            (["1704067200", "1704067202.5"], [1704067200.0, 1704067202.5]),
            (["1704067200000", "1704067202500"], [1704067200.0, 1704067202.5]),
            (["2024-01-01T00:00:00", "2024-01-01 00:00:02.500"], [1704067200.0, 1704067202.5]),
            (["2024-01-01T00:00:00Z", "2024-01-01T01:00:00+01:00"], [1704067200.0] * 2),
        ],
    )
    def test_time_stamps(self, cells: list[str], seconds: list[float]) -> None:
        one = MetricIngestor().ingest(
            csv_of("step,timestamp,loss", *(f"{i},{c},1" for i, c in enumerate(cells)))
        ).series[0]  # fmt: skip
        assert one.name == "loss"
        assert one.timestamps is not None
        assert one.timestamps.tolist() == pytest.approx(seconds)

    def test_a_time_that_is_a_duration_stays_a_measurement(self) -> None:
        assert read(csv_of("step,time,loss", "1,2.5,3"))["time"] == ([1], [2.5])

    def test_a_mapping_renames_columns(self) -> None:
        source = csv_of(",worker,gpu,time,batch_time_norm", "0,3,25,1,476", "1,4,25,1,509")
        found = read(source, batch_time_norm="step_time", worker="replica_id", time="step")
        assert found["step_time [replica 3]"] == ([1], [476.0])
        assert found["step_time [replica 4]"] == ([1], [509.0])

    def test_a_mapping_names_what_is_not_there(self) -> None:
        with pytest.raises(SchemaError, match=r"'losss'.*'step', 'loss'"):
            read(csv_of("step,loss", "1,2"), losss="loss")


class TestSteps:
    def test_a_step_that_goes_back_is_a_restart(self) -> None:
        source = csv_of("step,loss,val_loss", "1,5,", "2,4,9", "3,3,", "2,4,8", "3,3,", "4,2,7")
        signals = MetricIngestor().ingest(source)
        found = {(str(s.key), s.key.segment): s.steps.tolist() for s in signals.series}
        assert found == {
            ("loss", 0): [1, 2, 3],
            ("loss (restart 1)", 1): [2, 3, 4],
            ("val_loss", 0): [2],
            ("val_loss (restart 1)", 1): [2, 4],
        }
        assert "goes back from 3 to 2" in signals.metadata["order"][0]

    def test_an_evaluation_written_late_is_no_restart(self) -> None:
        source = csv_of("step,loss,val_loss", "10,5,", "20,4,", "10,,9", "30,3,", "30,,8")
        assert read(source) == {"loss": ([10, 20, 30], [5, 4, 3]), "val_loss": ([10, 30], [9, 8])}

    def test_replicas_restart_on_their_own(self) -> None:
        source = csv_of("step,rank,loss", "1,0,1", "1,1,1", "2,0,1", "2,1,1", "1,1,1", "3,0,1")
        found = MetricIngestor().ingest(source)
        assert {s.key.replica_id: s.key.segment for s in found.series} == {0: 0, 1: 1}

    def test_steps_of_one_value_are_kept_in_their_order(self) -> None:
        assert read(csv_of("step,loss", "1,5", "1,4", "2,3")) == {"loss": ([1, 1, 2], [5, 4, 3])}

    def test_steps_counted_per_epoch_are_counted_on(self) -> None:
        rows = [{"epoch": e, "step": s, "loss": 1.0} for e in range(3) for s in (10, 20, 30)]
        signals = MetricIngestor().ingest(rows)
        assert signals.select("loss")[0].steps.tolist() == [10, 20, 30, 40, 50, 60, 70, 80, 90]
        assert "per epoch" in signals.metadata["order"][0]

    def test_rows_out_of_order_are_sorted_and_it_is_said(self) -> None:
        order = np.random.default_rng(0).permutation(100)
        signals = MetricIngestor().ingest([{"step": int(s), "loss": float(s)} for s in order])
        assert signals.series[0].steps.tolist() == list(range(100))
        assert signals.series[0].values.tolist() == list(range(100))
        assert "out of order" in signals.metadata["order"][0]

    def test_a_row_without_a_step_belongs_to_the_one_before(self) -> None:
        assert read([{"step": 4, "loss": 1}, {"acc": 2}, {"step": 9, "loss": 3}]) == {
            "loss": ([4, 9], [1.0, 3.0]),
            "accuracy": ([4], [2.0]),
        }

    def test_some_steps_that_are_none_are_named(self) -> None:
        signals = MetricIngestor().ingest(csv_of("step,loss", "1,5", "x,4", "2.5,3", "4,2", "5,1"))
        assert signals.series[0].steps.tolist() == [1, 4, 5]
        assert "line 3: 'x'" in signals.unread[0]
        assert "line 4: '2.5'" in signals.unread[0]

    def test_a_step_column_without_steps_is_an_error(self) -> None:
        with pytest.raises(SchemaError, match=r"line 2, column 'step'.*got 'a'"):
            read(csv_of("step,loss", "a,1", "b,2"))

    @given(st.lists(st.integers(0, 30), max_size=60), st.booleans())
    def test_no_order_of_steps_raises_or_loses_a_value(self, steps: list[int], ep: bool) -> None:
        rows = [
            {"step": s, "loss": float(i), **({"epoch": i // 7} if ep else {})}
            for i, s in enumerate(steps)
        ]
        signals = MetricIngestor().ingest(rows)
        values = sorted(v for one in signals.select("loss") for v in one.values.tolist())
        assert values == [float(i) for i in range(len(steps))]


class TestFrames:
    DATA: ClassVar[dict[str, Any]] = {
        "step": [1, 2, 3, 4],
        "loss": [1.0, NAN, 0.5, None],
        "val_loss": [None, None, None, 2.0],
    }

    def expected(self, signals: SignalSet) -> None:
        loss, val = signals.select("loss", held_out=False)[0], signals.select("val_loss")[0]
        assert loss.steps.tolist() == [1, 2, 3]
        assert math.isnan(loss.values[1])
        assert (val.steps.tolist(), val.values.tolist()) == ([4], [2.0])

    def test_pandas_where_null_and_nan_are_the_same(self) -> None:
        # Row 4 has its NaN because val_loss was logged there; row 2 is a NaN of the run.
        pandas = pytest.importorskip("pandas")
        self.expected(open_source(pandas.DataFrame(self.DATA)))

    def test_pandas_a_loss_that_ends_in_nan(self) -> None:
        pandas = pytest.importorskip("pandas")
        loss = [1.0, 0.9] + [NAN] * 98
        found = open_source(pandas.DataFrame({"loss": loss})).series[0]
        assert len(found) == 100

    def test_pandas_arrow_types_dates_and_index(self) -> None:
        pandas = pytest.importorskip("pandas")
        pytest.importorskip("pyarrow")
        frame = pandas.DataFrame(
            {
                "loss": pandas.array([1.0, None], dtype="Float64"),
                "timestamp": pandas.to_datetime(["2024-01-01", "2024-01-02"]),
                "rank": ["0", "1"],
            },
            index=pandas.Index([7, 8], name="step"),
        ).convert_dtypes(dtype_backend="pyarrow")
        (one,) = open_source(frame).series
        assert one.key.replica_id == 0
        assert one.steps.tolist() == [7]
        assert one.timestamps is not None
        assert one.timestamps.tolist() == [1704067200.0]

    def test_polars(self) -> None:
        polars = pytest.importorskip("polars")
        frame = polars.DataFrame(self.DATA, strict=False)
        self.expected(open_source(frame))
        self.expected(open_source(frame.lazy()))

    def test_pyarrow(self) -> None:
        pyarrow = pytest.importorskip("pyarrow")
        self.expected(open_source(pyarrow.table(self.DATA)))

    def test_any_arrow_stream(self) -> None:
        pyarrow = pytest.importorskip("pyarrow")

        class Stream:
            def __arrow_c_stream__(self, schema: Any = None) -> Any:
                return pyarrow.table(TestFrames.DATA).__arrow_c_stream__(schema)

        self.expected(open_source(Stream()))

    def test_torch_columns(self) -> None:
        torch = pytest.importorskip("torch")
        values = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
        found = open_source({"loss": values}).series[0]
        assert found.values.tolist() == [1.0, 2.0]
