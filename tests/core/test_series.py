"""Series: checked once, read-only, cut without a copy."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from ml_systems_debugger.core import FrozenDict, Series, SeriesKey, SeriesKind, Signal


def series(
    steps: object = (0, 1, 2), values: object = (1.0, np.nan, 3.0), **more: object
) -> Series:
    key = SeriesKey("loss", split="val", run="b")
    return Series(key, steps, np.asarray(values), **more)  # type: ignore[arg-type]


def test_arrays_are_shared_and_read_only() -> None:
    steps, values = np.arange(3), np.ones(3)
    one = Series(SeriesKey("loss"), steps, values)
    assert np.shares_memory(one.values, values)
    assert np.shares_memory(one.steps, steps)
    for array in (one.values, one.steps, one.between(1, 2).values):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 5
    assert values.flags.writeable


@pytest.mark.parametrize("how", [copy.deepcopy, copy.copy, lambda s: pickle.loads(pickle.dumps(s))])  # noqa: S301
def test_copies_are_read_only_too(how: object) -> None:
    one = series(timestamps=np.arange(3.0), source_name="Val Loss", metadata=FrozenDict(a=1))
    other: Series = how(one)  # type: ignore[operator]
    assert list(other) == list(one)
    assert (other.key, other.source_name, other.metadata) == (one.key, one.source_name, {"a": 1})
    assert not other.values.flags.writeable


@pytest.mark.parametrize(
    ("steps", "values", "message"),
    [
        ([0, 1], [1.0], r"val_loss \(b\): steps \(2,\) and values \(1,\) differ"),
        ([0, 2, 1], [1.0] * 3, "step goes back from 2 to 1"),
        ([0.5, 1.5], [1.0] * 2, "steps are whole numbers of 64 bits, got float64"),
        (np.array([2**63], np.uint64), [1.0], "steps are whole numbers of 64 bits, got 9223"),
        ([0], np.ones(1, np.float32), "a scalar series holds float64, got float32"),
    ],
)
def test_what_does_not_fit_is_named(steps: object, values: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        series(steps, values)


def test_timestamps_fit() -> None:
    with pytest.raises(ValueError, match="3 steps but 2 timestamps"):
        series(timestamps=[1.0, 2.0])


def test_between_is_half_open_and_shares() -> None:
    one = series([0, 5, 5, 9], [1.0, 2.0, 3.0, 4.0])
    assert one.between(5, 9).values.tolist() == [2.0, 3.0]
    assert one.between(None, None) is one
    assert len(one.between(9, 2)) == 0
    assert len(one.between(100, None)) == 0


def test_signals_carry_the_place() -> None:
    one = series(timestamps=[1.0, np.nan, 2.0])
    first, second = one[0], one[1]
    assert first == Signal("val_loss", 1.0, 1.0, {"split": "val", "run": "b"}, step=0)
    assert second.timestamp is None
    assert np.isnan(second.value)
    assert one[-1].step == 2
    assert [s.step for s in one[1:]] == [1, 2]
    with pytest.raises(IndexError):
        one[3]


def test_digests_keep_all_bits() -> None:
    key = SeriesKey("param_digest", kind=SeriesKind.DIGEST)
    one = Series(key, np.array([0]), np.array([2**64 - 1], np.uint64))
    assert one[0].value == 2**64 - 1


def test_keys_sort_with_mixed_replicas_and_go_to_json() -> None:
    keys = [SeriesKey("loss", replica_id=r) for r in ("b", 10, None, np.int64(2), "a")]  # type: ignore[arg-type]
    ordered = [key.replica_id for key in sorted(keys, key=SeriesKey.sort_key)]
    assert ordered == [None, 2, 10, "a", "b"]
    for key in keys:
        assert SeriesKey.from_list(key.to_list()) == key
        assert all(part is None or type(part) in (str, int) for part in key.to_list())


@pytest.mark.parametrize(
    ("key", "text", "held_out"),
    [
        (SeriesKey("loss"), "loss", False),
        (SeriesKey("loss", "train"), "loss", False),
        (SeriesKey("loss", "eval_wiki"), "eval_wiki_loss", True),
        (SeriesKey("grad_norm", None, "a.b", 3, "x", 2),
         "grad_norm/a.b [replica 3] (x) (restart 2)",
         False),
    ],
)  # fmt: skip
def test_keys_in_words(key: SeriesKey, text: str, held_out: bool) -> None:
    assert str(key) == text
    assert key.held_out is held_out
