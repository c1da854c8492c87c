"""Signal sets against a naive model, and the cuts that a history can take."""

from __future__ import annotations

import copy
import math
import pickle
from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest
from core_strategies import signals
from hypothesis import given
from hypothesis import strategies as st

from ml_systems_debugger.core import (
    Series,
    SeriesKey,
    SeriesKind,
    Signal,
    SignalSet,
    split_at_restarts,
)


def content(one: SignalSet) -> dict[SeriesKey, list[tuple[int, object, float]]]:
    return {
        s.key: [
            (int(a), "NaN" if isinstance(b, float) and math.isnan(b) else b, t)
            for a, b, t in zip(
                s.steps, s.values.tolist(),
                [-1.0] * len(s) if s.timestamps is None else np.nan_to_num(s.timestamps, nan=-1.0),
                strict=True,
            )
        ]
        for s in one.series
    }  # fmt: skip


@given(st.lists(signals, max_size=40))
def test_from_signals_keeps_every_signal_under_its_own_name(given_signals: list[Signal]) -> None:
    made = SignalSet.from_signals(given_signals)
    assert len(made) == len(given_signals)
    model: dict[tuple[object, ...], list[object]] = defaultdict(list)
    for one in given_signals:
        kind = SeriesKind.TEXT if isinstance(one.value, str) else SeriesKind.SCALAR
        place = (one.name, one.layer_name, one.replica_id, kind,
                 one.metadata.get("split"), one.metadata.get("run"))  # fmt: skip
        model[place].append(one.value)
    groups: dict[tuple[object, ...], list[object]] = defaultdict(list)
    for series in made.series:
        name = series.source_name or series[0].name
        said_by_name = name == "val_loss" and series.key.split == "val"
        told = None if said_by_name else series.key.split
        place = (name, series.key.layer, series.key.replica_id, series.kind, told, series.key.run)
        groups[place].extend(series.values.tolist())
    values = sorted(len(found) for found in groups.values())
    assert values == sorted(len(found) for found in model.values())
    assert sum(values) == len(given_signals)


@given(st.lists(signals, max_size=40))
def test_reading_a_set_again_gives_the_same_set(given_signals: list[Signal]) -> None:
    once = SignalSet.from_signals(given_signals)
    again = SignalSet.from_signals(list(once))
    assert content(again) == content(once)


@given(st.lists(signals, max_size=40), st.lists(st.integers(-1, 22), max_size=5))
def test_cut_and_joined_is_the_original(given_signals: list[Signal], cuts: list[int]) -> None:
    whole = SignalSet.from_signals(given_signals, {"a": 1})
    edges = [None, *sorted(cuts), None]
    parts = [whole.between(a, b) for a, b in pairwise(edges)]
    joined = SignalSet.concatenate(parts)
    assert content(joined) == content(whole)
    assert joined.metadata == whole.metadata
    assert len(joined) == sum(len(part) for part in parts)


def test_two_names_of_one_quantity_stay_two_series() -> None:
    made = SignalSet.from_signals(
        [Signal(name, value, step=at) for at in range(3)
         for name, value in (("learning_rate", 9.0), ("lr", 0.1))]
    )  # fmt: skip
    assert made.names == ("learning_rate", "lr")
    assert made.select("lr")[0].values.tolist() == [0.1] * 3
    assert [len(s) for s in made.series] == [3, 3]


def test_an_alias_alone_takes_the_quantity() -> None:
    made = SignalSet.from_signals([Signal("learning_rate", 0.1, step=0)])
    assert made.names == ("lr",)
    assert made[0].name == "learning_rate"


def test_a_restart_is_a_new_segment_beside_numbered_ones() -> None:
    told = {"segment": 1}
    made = SignalSet.from_signals(
        [Signal("loss", 1.0, step=5), Signal("loss", 2.0, step=3),
         Signal("loss", 3.0, step=9, metadata=told)]
    )  # fmt: skip
    assert [(s.key.segment, s.values.tolist()) for s in made.series] == [
        (0, [1.0]), (1, [2.0]), (2, [3.0]),
    ]  # fmt: skip


def test_missing_steps_count_on() -> None:
    made = SignalSet.from_signals(
        [Signal("loss", 1.0), Signal("loss", 2.0, step=7), Signal("loss", 3.0)]
    )
    assert made.series[0].steps.tolist() == [0, 7, 8]


def test_what_cannot_be_read_is_named() -> None:
    made = SignalSet.from_signals(
        [Signal("loss", None, step=4), Signal("param_digest", 1.5, step=2), Signal("loss", 1j)]
    )
    assert len(made) == 0
    assert made.unread == (
        "signal 'loss' at step 4: a value of type NoneType is no number, array or text",
        "signal 'param_digest' at step 2: a digest is a whole number, got 1.5",
        "signal 'loss' at step None: a value of type complex is no number, array or text",
    )


def test_errors_of_from_signals() -> None:
    with pytest.raises(TypeError, match="item 1 is no Signal but float"):
        SignalSet.of([Signal("loss", 1.0), 0.5])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"loss: step 9223372036854775808 does not fit"):
        SignalSet.of([Signal("loss", 1.0, step=2**63)])


def test_arrays_digests_and_text_have_kinds_of_their_own() -> None:
    array = np.ones(4)
    made = SignalSet.from_signals(
        [Signal("gradient", array, step=0), Signal("gradient", 1.0, step=0),
         Signal("param_digest", -1, step=0), Signal("log", "hello", step=0)]
    )  # fmt: skip
    assert [s.kind for s in made.series] == [
        SeriesKind.ARRAY, SeriesKind.SCALAR, SeriesKind.DIGEST, SeriesKind.TEXT,
    ]  # fmt: skip
    assert made[0].value is array
    assert made[2].value == 2**64 - 1


def test_it_is_read_only_and_survives_pickle_and_copy() -> None:
    made = SignalSet.from_signals([Signal("loss", 1.0, step=2)], {"a": 1})
    with pytest.raises(AttributeError, match="read-only"):
        made.series = ()
    with pytest.raises(TypeError):
        made.metadata["a"] = 2
    for other in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made)):  # noqa: S301
        assert content(other) == content(made)
        assert other.metadata == {"a": 1}


def test_two_series_of_one_key_are_an_error() -> None:
    one = Series(SeriesKey("loss"), np.arange(1), np.ones(1))
    with pytest.raises(ValueError, match="two series of the same key: loss"):
        SignalSet([one, one])


def test_as_a_sequence() -> None:
    made = SignalSet.from_signals([Signal(n, v, step=v) for n in ("loss", "lr") for v in range(3)])
    assert [s.value for s in made] == [0, 1, 2, 0, 1, 2]
    assert [made[at].value for at in (0, 2, 3, -1)] == [0, 2, 0, 2]
    assert [s.value for s in made[2:4]] == [2, 0]
    for index in (6, -7):
        with pytest.raises(IndexError, match="of 6"):
            made[index]
    assert SignalSet.of(made) is made
    assert made.step_range == (0, 2)
    assert SignalSet().step_range is None
    with pytest.raises(IndexError):
        SignalSet()[0]


def test_select() -> None:
    made = SignalSet.from_signals(
        [Signal("loss", 1.0), Signal("val_loss", 1.0), Signal("eval_wiki_loss", 1.0),
         Signal("grad_norm", 1.0, layer_name="a"), Signal("grad_norm", 1.0, replica_id=1)]
    )  # fmt: skip
    assert [str(s.key) for s in made.select("loss")] == ["loss", "eval_wiki_loss", "val_loss"]
    assert [str(s.key) for s in made.select("val_loss")] == ["val_loss"]
    assert len(made.select("loss", held_out=True)) == 2
    assert len(made.select("loss", split=None)) == 1
    assert len(made.select("grad_norm", layer=None)) == 1
    assert len(made.select("gradient_norm", replica_id=1)) == 1
    assert len(made.select()) == 5
    assert made.select("no such") == ()


@given(st.lists(st.integers(-3, 3), max_size=20))
def test_restarts_are_runs_that_never_decrease(steps: list[int]) -> None:
    array = np.array(steps, np.int64)
    parts = [array[part].tolist() for part in split_at_restarts(array)]
    assert [step for part in parts for step in part] == steps
    assert all(part == sorted(part) for part in parts)
    assert all(b[0] < a[-1] for a, b in pairwise(parts) if a)
