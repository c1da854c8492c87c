"""Chunks that are held back: what the detectors find in them is what they find in the whole."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from ml_systems_debugger.core import (
    BaseDetector,
    FailureMode,
    Outcome,
    SeriesKey,
    SeriesKind,
    SignalSet,
    detectors,
)
from ml_systems_debugger.monitoring import Monitor, _held, _intake
from ml_systems_debugger.monitoring._held import Held, urgent
from ml_systems_debugger.monitoring._judges import Judges

sys.path.insert(0, str(Path(__file__).parents[1] / "contracts"))
from histories import healthy, restarted, series, tabled


def whole(run: SignalSet) -> list[dict[str, Any]]:
    return [cls().detect(run).to_dict() for cls in detectors.items().values()]


def in_pieces(run: SignalSet, at: list[int], *, known: bool) -> list[dict[str, Any]]:
    judges = Judges([cls() for cls in detectors.items().values()], {}, strict=True)
    keys: dict[Any, Any] = {}
    for start, stop in pairwise([None, *at, None]):
        chunk = run.between(start, stop)
        judges.update(tabled(chunk, keys) if known else chunk, steps=7)
    judges.flush()
    return [one.to_dict() for one in judges.conclude()]


def with_gaps(run: SignalSet, every: int) -> SignalSet:
    """Log the losses now and then, as those on held-out data are."""
    return SignalSet(
        series(one.name, one.values[::every], stride=every, layer=one.key.layer)
        if one.name == "loss" and one.key.split is None else one
        for one in run.series
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("known", [True, False])
def test_in_pieces_as_in_the_whole(seed: int, known: bool) -> None:
    rng = np.random.default_rng(seed)
    at = np.flatnonzero(rng.random(400) < 0.08)[1:].tolist()
    for run in (healthy(seed), with_gaps(healthy(seed), 5), restarted(healthy(seed), rng)):
        assert in_pieces(run, at, known=known) == whole(run)


@pytest.mark.parametrize("seed", range(3))
def test_a_series_that_changes_its_table(seed: int) -> None:
    run = healthy(seed)
    alone = SignalSet([one for one in run.series if one.name != "lr"])
    at = list(range(20, 400, 20))
    judges = Judges([cls() for cls in detectors.items().values()], {}, strict=True)
    keys: dict[Any, Any] = {}
    for number, (start, stop) in enumerate(pairwise([None, *at, None])):
        chunk = (alone if number % 4 == 3 else run).between(start, stop)
        judges.update(tabled(chunk, keys) if number % 3 else chunk, steps=20)
    judges.flush()
    kept = [
        SignalSet(
            one for one in run.between(start, stop).series if number % 4 != 3 or one.name != "lr"
        )
        for number, (start, stop) in enumerate(pairwise([None, *at, None]))
    ]
    assert [one.to_dict() for one in judges.conclude()] == whole(SignalSet.concatenate(kept))


def chunk_at(step: int, value: float = 1.0) -> SignalSet:
    return SignalSet([series("loss", np.full(4, value), start=step)])


def test_what_ends_the_wait() -> None:
    held = Held(12)
    assert [held.add(chunk_at(4 * at), 4) for at in range(3)] == [False, False, True]
    (taken,) = held.take()
    assert len(taken) == 12
    assert held.take() == []
    with patch.object(_held, "_VALUES", 8):
        assert [held.add(chunk_at(4 * at), 4) for at in range(2)] == [False, True]


def test_what_is_urgent() -> None:
    assert not urgent(chunk_at(0))
    assert urgent(chunk_at(0, np.nan))
    table = tabled(chunk_at(0, np.inf), {})
    assert table.tables
    assert urgent(table)
    text = SignalSet([series("log_event", ["a"], kind=SeriesKind.TEXT)])
    assert urgent(text)


class Counting(BaseDetector):
    failure_mode = FailureMode.LOSS_SPIKE
    latency = 40

    def __init__(self) -> None:
        self.seen: list[int] = []

    def update(self, state: Any, chunk: SignalSet) -> tuple[()]:
        self.seen.append(len(chunk.series[0]))
        return ()

    def conclude(self, state: Any) -> Any:
        return self._silent(Outcome.NOT_APPLICABLE, str(state))

    def reads(self, key: SeriesKey) -> bool:
        return key.name == "loss"


def test_steps_that_take_long_are_judged_in_time() -> None:
    counting, clock = Counting(), 100.0
    with patch.object(_intake.time, "monotonic", lambda: clock):
        monitor = Monitor(detectors=[counting], action="none")
        for step in range(13):
            clock += 2.0
            monitor.observe(step, loss=1.0)
    assert counting.seen == [3, 3, 3, 3]


def test_a_monitor_waits_as_long_as_a_detector_allows() -> None:
    counting = Counting()
    monitor = Monitor(detectors=[counting], every=8, action="none")
    for step in range(50):
        monitor.observe(step, loss=1.0)
    assert counting.seen == [40]
    monitor.observe(50, loss=np.nan)  # at once, with what was held
    assert counting.seen == [40, 11]
    for step in range(51, 53):
        monitor.observe(step, lr=1.0)
    monitor.close()
    assert counting.seen == [40, 11]  # nothing that it reads
    monitor.observe(53, loss=1.0)
    monitor.report()
    assert counting.seen == [40, 11, 1]
