"""States of detectors: bounded, independent of the cut, restored whole or not at all."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_systems_debugger.core import (
    Column,
    EventKind,
    Finding,
    FoldState,
    HistoryState,
    SeriesKey,
    Signal,
    SignalSet,
)
from ml_systems_debugger.core import fold_state as module
from ml_systems_debugger.core._pack import pack


def fresh() -> FoldState:
    return FoldState("mine", 2, {"mean": Column(fill=1.5), "file": Column(np.int64, (2,))})


def finding(name: str, step: int = 0) -> Finding:
    return Finding("loss_spike", "high", 0.5, onset_step=step, finding_id=name)  # type: ignore[arg-type]


def test_rows_are_made_with_the_fill_and_kept_when_more_come() -> None:
    state = fresh()
    for at in range(20):
        row = state.row(SeriesKey("loss", replica_id=at))
        assert row == at
        assert state["mean"][row] == 1.5
        state["mean"][row] = at
    assert state["mean"][:20].tolist() == list(range(20))
    assert state.row(SeriesKey("loss", replica_id=3)) == 3
    assert len(state.keys) == 20


@given(
    st.lists(st.floats(), max_size=6),
    st.dictionaries(
        st.text(min_size=1, max_size=4), st.lists(st.integers(), max_size=3), max_size=3
    ),
)
def test_saved_and_restored(values: list[float], memory: dict[str, list[int]]) -> None:
    state = fresh()
    for at, value in enumerate(values):
        row = state.row(SeriesKey("loss", layer=f"l{at}", replica_id=at))
        state["mean"][row] = value
        state.open(at, finding(f"f{at}", at))
    state.memory.update(memory)
    other = fresh()
    other.restore(state.to_bytes())
    assert other.keys == state.keys
    assert other.findings == state.findings
    assert other.memory == memory
    assert other.take_events() == ()
    np.testing.assert_array_equal(other["mean"][: len(values)], values)
    for held in other.memory.values():
        held.append(1)  # lists stay lists: a detector goes on with them
    row = other.row(SeriesKey("new"))
    other["mean"][row] = 7  # and arrays stay writable
    assert fresh().to_bytes() == fresh().to_bytes()


@pytest.mark.parametrize("cut", [0, 1, 10, 100, -1, -40])
def test_damaged_bytes_are_one_error_and_change_nothing(cut: int) -> None:
    state = fresh()
    state.row(SeriesKey("loss"))
    state.open(0, finding("a"))
    other = fresh()
    with pytest.raises(ValueError, match=r"not a saved state|damaged"):
        other.restore(state.to_bytes()[:cut])
    assert (other.keys, other.findings, other.memory) == ((), {}, {})


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_flipped_byte_is_noticed_or_harmless(place: int, flip: int) -> None:
    state = fresh()
    state.row(SeriesKey("loss"))
    data = bytearray(state.to_bytes())
    data[place % len(data)] ^= flip
    try:
        fresh().restore(bytes(data))
    except ValueError as error:
        assert str(error)  # noqa: PT017 - any other error fails the test


def test_states_of_others_are_refused_by_name() -> None:
    data = fresh().to_bytes()
    with pytest.raises(ValueError, match="a state of mine version 2, not of mine version 3"):
        FoldState("mine", 3, {}).restore(data)
    with pytest.raises(ValueError, match="column 'mean' does not fit"):
        FoldState("mine", 2, {"mean": Column(np.float32)}).restore(data)
    with pytest.raises(ValueError, match="a state of mine, not of other"):
        HistoryState("other", None).restore(HistoryState("mine", None).to_bytes())
    with pytest.raises(ValueError, match="saved state of mine is damaged: KeyError"):
        fresh().restore(pack({"detector": "mine", "version": 2}, {}))
    with pytest.raises(ValueError, match="its header is a list"):
        fresh().restore(pack([], {}))  # type: ignore[arg-type]


def test_objects_are_never_pickled() -> None:
    with pytest.raises(TypeError, match=r"'thing' holds object, which is saved by pickle only"):
        FoldState("mine", 1, {"thing": Column(object)}).to_bytes()


def test_a_snapshot_is_independent() -> None:
    state = fresh()
    row = state.row(SeriesKey("loss"))
    copied = state.snapshot()
    state["mean"][row] = math.inf
    state.memory["a"] = 1
    state.open(0, finding("a"))
    assert copied["mean"][row] == 1.5
    assert (copied.memory, copied.findings) == ({}, {})


def test_events_of_one_finding() -> None:
    state = fresh()
    assert state.open(3, finding("a"))
    with pytest.raises(ValueError, match="'a' is open already"):
        state.open(3, finding("a"))
    state.replace(finding("a", 2))
    state.replace(finding("a", 1), step=4)
    state.close(5, finding("a", 1))
    state.open(1, finding("b"))
    state.retract(6, "b")
    state.retract(6, "never opened")
    state.close(6, finding("never opened"))
    kinds = [(e.step, e.kind) for e in state.take_events()]
    assert kinds == [(1, EventKind.OPEN), (3, EventKind.OPEN), (4, EventKind.EXTEND),
                     (5, EventKind.CLOSE), (6, EventKind.RETRACT)]  # fmt: skip
    assert state.take_events() == ()
    assert list(state.findings) == ["a"]
    assert state.findings["a"].onset_step == 1


openings = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from("abcdefgh")), unique_by=lambda o: o[1]
)


def folded(parts: Sequence[Sequence[tuple[int, str]]], retracted: str) -> tuple[object, ...]:
    state = fresh()
    events = []
    for part in parts:
        for step, name in part:
            if state.open(step, finding(name, step)) and name == retracted:
                state.retract(step, name)
        events += state.take_events()
    return sorted(state.findings), events, state.dropped_findings


@given(openings, st.sampled_from("abcdefgh"))
def test_which_findings_are_kept_does_not_depend_on_the_cut(
    opened: list[tuple[int, str]], retracted: str
) -> None:
    usual, module.MAX_FINDINGS = module.MAX_FINDINGS, 3
    try:
        by_step = [[o for o in opened if o[0] == step] for step in range(6)]
        whole = folded([opened], retracted)
        assert folded(by_step, retracted) == whole
        assert len(whole[0]) <= 3  # type: ignore[arg-type]
    finally:
        module.MAX_FINDINGS = usual


def test_a_history_is_saved_with_what_was_not_read() -> None:
    state = HistoryState("mine", None)
    state.add(SignalSet.from_signals([Signal("loss", 0.5, 9.0, step=1)], {"source": "a"}))
    state.add(SignalSet.from_signals([Signal("loss", math.nan, step=2), Signal("x", None)]))
    other = HistoryState("mine", None)
    other.restore(state.to_bytes())
    assert list(other.history) == list(state.history)
    assert other.history.unread == state.history.unread != ()
    assert other.history.metadata == {"source": "a"}
    snapshot = state.snapshot()
    state.add(SignalSet.from_signals([Signal("loss", 1.0, step=3)]))
    assert len(snapshot.history) == 2


def test_a_history_of_arrays_is_not_saved() -> None:
    state = HistoryState("mine", None)
    state.add(SignalSet.from_signals([Signal("gradient", np.ones(2), step=1)]))
    with pytest.raises(TypeError, match="gradient: a history of array values is not saved"):
        state.to_bytes()
