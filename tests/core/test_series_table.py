"""Tables of series: the same set as one made of their series."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from ml_systems_debugger import Series, SeriesKey, SignalSet
from ml_systems_debugger.core import Column, FoldState, SeriesKind, SeriesTable, TableKeys

KEYS = TableKeys(
    [SeriesKey("loss"), *(SeriesKey("grad_norm", layer=x) for x in "abc"), SeriesKey("lr", run="r")]
)


def table(n: int = 6, keys: TableKeys = KEYS) -> SeriesTable:
    values = np.random.default_rng(0).normal(size=(n, len(keys)))
    return SeriesTable(keys, np.arange(0, 2 * n, 2), values)


def both() -> tuple[SignalSet, SignalSet]:
    one = table()
    single = Series(SeriesKey("loss", "val"), np.array([3, 5]), np.array([1.0, 2.0]))
    made = SignalSet.of_tables([one], [single])
    return made, SignalSet([*one, single])


def same(a: SignalSet, b: SignalSet) -> None:
    assert [s.key for s in a.series] == [s.key for s in b.series]
    for x, y in zip(a.series, b.series, strict=True):
        np.testing.assert_array_equal(x.steps, y.steps)
        np.testing.assert_array_equal(x.values, y.values)
        assert (x.timestamps, x.source_name, x.metadata) == (None, "", {})


def test_a_set_of_tables_answers_as_one_of_series() -> None:
    for ask in (
        lambda s: s.names, lambda s: s.keys, len, lambda s: s.step_range, list, repr,
        lambda s: [x.key for x in s.select("grad_norm", "val_loss")],
        lambda s: [x.key for x in s.select("loss", held_out=False)],
        lambda s: [x.key for x in s.named("lr", "loss")],
        lambda s: [x.key for x in s.named("grad_norm")],
        lambda s: s.get(SeriesKey("grad_norm", layer="b")).values.tolist(),
        lambda s: s[-1], lambda s: s[7:9],
    ):  # fmt: skip
        made, plain = both()
        assert ask(made) == ask(plain)
    made, plain = both()
    same(made, plain)
    for low, high in ((None, 4), (4, None), (3, 6), (100, None), (None, None)):
        made, plain = both()
        same(made.between(low, high), plain.between(low, high))
    made, plain = both()
    same(made.with_series([Series(SeriesKey("x"), np.array([1]), np.array([1.0]))]),
         plain.with_series([Series(SeriesKey("x"), np.array([1]), np.array([1.0]))]))  # fmt: skip
    same(SignalSet.concatenate([made.between(None, 4), made.between(4, None)]), plain)
    same(pickle.loads(pickle.dumps(made)), plain)  # noqa: S301 - our own bytes
    same(copy.deepcopy(made), plain)


def test_a_key_twice_is_refused_where_it_shows() -> None:
    twice = SignalSet.of_tables([table()], [Series(SeriesKey("loss"), np.array([1]), np.ones(1))])
    with pytest.raises(ValueError, match="two series of the same key: loss"):
        twice.keys  # noqa: B018


def test_what_does_not_fit_is_refused() -> None:
    steps, values = np.arange(3), np.zeros((3, 2))
    two = TableKeys([SeriesKey("a"), SeriesKey("b")])
    with pytest.raises(ValueError, match=r"values \(3, 2\) are not those of 3 steps and 5 keys"):
        SeriesTable(KEYS, steps, values)
    with pytest.raises(ValueError, match="goes back from 2 to 1"):
        SeriesTable(two, np.array([0, 2, 1]), values)
    with pytest.raises(ValueError, match="contiguous"):
        SeriesTable(two, steps, np.zeros((2, 3)).T)
    with pytest.raises(ValueError, match="keys of their own"):
        TableKeys([SeriesKey("a"), SeriesKey("a")])
    with pytest.raises(ValueError, match="scalars, got text"):
        TableKeys([SeriesKey("a", kind=SeriesKind.TEXT)])
    one = SeriesTable(two, steps, values)
    with pytest.raises(AttributeError, match="read-only"):
        one.steps = steps
    with pytest.raises(ValueError, match="read-only"):
        values[0, 0] = 1


def test_what_columns_have_in_common() -> None:
    assert {n: p.tolist() for n, p in KEYS.by_name.items()} == {
        "loss": [0], "grad_norm": [1, 2, 3], "lr": [4],
    }  # fmt: skip
    assert not KEYS.replicas
    assert TableKeys([SeriesKey("a", replica_id=0)]).replicas == {0}
    assert KEYS.runs_of(("loss", "grad_norm")) == {None}
    assert KEYS.runs_of(("loss", "lr")) == {None, "r"}
    assert KEYS.runs_of(("seed",)) == set()


def test_rows_and_plans_of_a_state() -> None:
    state = FoldState("d", 1, {"x": Column()})
    state.row(SeriesKey("lr", run="r"))
    rows = state.rows(KEYS)
    assert isinstance(rows, np.ndarray)
    assert rows.tolist() == [1, 2, 3, 4, 0]
    assert state.rows(TableKeys(KEYS.keys[:4])) == slice(1, 5)
    made: list[int] = []
    for _ in range(3):
        assert state.plan(KEYS, "p", lambda: made.append(1) or "made") == "made"
    assert made == [1]
    other = copy.deepcopy(state)
    other.plan(KEYS, "p", lambda: made.append(2))
    assert made == [1, 2]
    fresh = FoldState("d", 1, {"x": Column()})
    assert fresh.rows(KEYS) == slice(0, 5)
    fresh.restore(state.to_bytes())
    assert isinstance(fresh.rows(KEYS), np.ndarray)
    for _ in range(200):  # never more than some
        state.plan(TableKeys(KEYS.keys), "p", list)
    assert len(state._plans) <= 64
