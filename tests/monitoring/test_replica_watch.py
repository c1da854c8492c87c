"""Who does not answer: the thread that listens, with a store and a clock at hand."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

dist = pytest.importorskip("torch.distributed", reason="torch is not installed")
if not dist.is_available():
    pytest.skip("torch has no distributed jobs here", allow_module_level=True)

from ml_systems_debugger.monitoring import _replica_watch  # noqa: E402 - needs torch
from ml_systems_debugger.monitoring._replica_watch import Watch  # noqa: E402 - likewise

TIMEOUT = 20.0


class Store(dist.HashStore):
    """A store of one process."""

    def clone(self) -> Store:
        return self


class Bench:
    """Rank 0 that listens to rank 1, which beats when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.slept = 0.0
        clock = SimpleNamespace(monotonic=lambda: time.monotonic() + self.slept, sleep=time.sleep)
        monkeypatch.setattr(_replica_watch, "time", clock)
        store = Store()
        monkeypatch.setattr(dist.distributed_c10d, "_get_default_store", lambda: store)
        self.told: list[Any] = []
        self.watch = Watch(0, [0, 1], TIMEOUT, lambda: (5, "backward"), self.told.extend)
        self.beats = self.looks = 0
        look = self.watch._look

        def counted() -> None:
            look()
            self.looks += 1

        monkeypatch.setattr(self.watch, "_look", counted)

    def beat(self) -> None:
        self.beats += 1
        self.watch._store.set("beat/1", f"{self.beats},5,2,")

    def passes(self, seconds: float) -> None:
        """Let the clock go on while the watch waits, and let it look."""
        time.sleep(0.2)  # it waits again by now
        looks = self.looks
        self.slept += seconds
        self.watch.hurry()
        end = time.monotonic() + 60
        while self.looks == looks:
            assert time.monotonic() < end
            time.sleep(0.01)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    made = Bench(monkeypatch)
    yield made
    for rank in made.watch._peers:  # nobody is waited for
        made.watch._store.set(f"beat/{rank}", "0,5,2,done")
    made.watch.close()


def test_a_rank_that_falls_silent_is_named(bench: Bench) -> None:
    bench.beat()
    bench.passes(0.0)
    for _ in range(4):
        assert bench.told == []
        bench.passes(6.0)
    (found,) = bench.told
    assert (found.replica_id, found.onset_step) == (1, 6)
    assert "no heartbeat for" in found.message


def test_where_the_whole_job_slept_nobody_is_named(bench: Bench) -> None:
    bench.beat()
    bench.passes(0.0)
    bench.passes(1000.0)
    assert bench.told == [], "the others have slept as long, perhaps"
    bench.beat()
    bench.passes(6.0)
    bench.passes(6.0)
    assert bench.told == []
    for _ in range(3):
        bench.passes(6.0)
    assert len(bench.told) == 1, "who stays silent from then on is named"


def hangs(bench: Bench, calls: dict[int, list[int]], patch: pytest.MonkeyPatch) -> None:
    """Let ranks 0 to 3 live and hang at the same place, with so many calls each."""
    patch.setattr(_replica_watch, "calls_made", lambda: calls[0])
    for rank in (2, 3):
        bench.watch._peers[rank] = type(bench.watch._peers[1])()
    for _ in range(12):
        bench.beats += 1
        for rank in (1, 2, 3):
            bench.watch._store.set(f"beat/{rank}", f"{bench.beats},5,2,")
            bench.watch._store.set(f"calls/{rank}", f"5:{','.join(map(str, calls[rank]))}")
        bench.passes(10.0)


@pytest.mark.parametrize(
    ("odd", "severity", "mode"),
    [
        ([6, 22], "high", "gradient_desynchronization"),
        ([6, 20], "medium", "partial_worker_failure"),
    ],
)
def test_a_hang_of_all_is_laid_to_the_rank_whose_calls_are_odd(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, odd: list[int], severity: str, mode: str
) -> None:
    hangs(bench, {0: [7, 20], 1: [7, 21], 2: odd, 3: [7, 20]}, monkeypatch)
    (found,) = bench.told
    assert (found.replica_id, found.onset_step) == (2, 6)
    assert (str(found.severity), str(found.failure_mode)) == (severity, mode)


@pytest.mark.parametrize(
    "calls",
    [
        {0: [7, 20], 1: [7, 20], 2: [7, 20], 3: [7, 20]},  # the network: nobody is odd
        {0: [7, 20], 1: [7, 20], 2: [6, 20], 3: [6, 20]},  # two are behind
        {0: [7, 20], 1: [7, 20], 2: [6, 22], 3: [6, 22]},  # two against two
        {0: [7, 20], 1: [7, 20, 3], 2: [6, 22], 3: [7, 20]},  # other groups: another program
    ],
)
def test_a_hang_that_no_calls_explain_is_laid_to_nobody(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, calls: dict[int, list[int]]
) -> None:
    hangs(bench, calls, monkeypatch)
    assert bench.told == []


def test_calls_that_cannot_be_asked_for_are_no_lost_host(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Moved(dict[int, list[int]]):
        """Another torch keeps them elsewhere; asked by their own rank alone."""

        def __getitem__(self, rank: int) -> list[int]:
            if rank == 0:
                raise AttributeError("_world")
            return [7, 20]

    hangs(bench, Moved(), monkeypatch)
    assert bench.told == []
    assert capsys.readouterr().err.count("calls of a job that hangs are not known") == 1
