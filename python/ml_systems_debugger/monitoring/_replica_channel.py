"""The exchange itself: a thread that calls the collectives, in the same order on every rank."""

from __future__ import annotations

import datetime
import queue
import threading
from collections import deque
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from ._replica_record import RECORD, Digests, History, Located, Records

__all__ = ["Answer", "Channel"]

_MOST_PENDING = 1024  # exchanges that a rank may be ahead of the slowest
_MOST_LOCATED = 16  # mismatches of one run that are looked into

Answer = tuple[Records, Located | None]


class Channel:
    """Exchanges records over a process group of its own, beside the training.

    `send` only puts a record into a queue. A thread calls one all-gather for each,
    and where the gathered records disagree two more at once: since all ranks see
    the same records they all decide alike, so the order of calls on this group is
    the same everywhere, whatever the job's own groups are doing.

    Parameters
    ----------
    ranks : sequence of int
        Of the job.
    rows : int
        Steps that are looked back to at a mismatch.
    layout : uint64 [4]
        Of this rank, from `Compared`.
    timeout : float
        Seconds after which a collective call of its own fails.
    broken : callable
        Told the error that ended the exchange.
    """

    def __init__(
        self, ranks: list[int], rows: int, layout: Digests, timeout: float,
        broken: Callable[[Exception], None],
    ) -> None:  # fmt: skip
        self._torch = import_module("torch")
        self._dist = import_module("torch.distributed")
        self._ranks, self._rows, self._broken = ranks, rows, broken
        self._group = self._dist.new_group(
            ranks, backend="gloo", timeout=datetime.timedelta(seconds=timeout),
            use_local_synchronization=len(ranks) < self._dist.get_world_size(),
            group_desc="agreement of replicas",
        )  # fmt: skip
        self._own = layout
        self.layout: Digests | None = None
        """What all ranks told of their sets [ranks, 4]; None until it has come."""
        self._queue: queue.SimpleQueue[tuple[Records, History] | None] = queue.SimpleQueue()
        self._answers: deque[Answer] = deque()
        self.firsts = np.zeros((len(ranks), 2), np.intp)
        """The first rank of each rank's sets [ranks, 2]."""
        self._camps: npt.NDArray[np.intp] = self.firsts
        self._odd = np.zeros(len(ranks), np.int64)
        self._first: npt.NDArray[np.int64] | None = None
        self.sent = self.answered = self.located = 0
        self.payload = {"records": 0, "mismatches": 0}
        """Bytes that this rank contributed: to records, and to what followed on mismatches."""
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="mlsd-replicas", daemon=True)
        self._thread.start()

    @property
    def open(self) -> bool:
        """Whether records still go out."""
        return self.error is None

    def send(self, record: Records, history: History) -> None:
        """Queue a record; never waits."""
        if self.error is not None:
            return
        if self.sent - self.answered >= _MOST_PENDING:
            self.error = RuntimeError(f"{_MOST_PENDING} exchanges are not answered")
            self._broken(self.error)
            return
        self.sent += 1
        self._queue.put((record, history))

    def answers(self) -> list[Answer]:
        """Return what has come since the last call, in order."""
        found = []
        while self._answers:
            found.append(self._answers.popleft())
        return found

    def close(self, timeout: float) -> bool:
        """Let what is queued go out, for at most so many seconds; return whether it did."""
        self._queue.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            layout = self._gather(self._own)
            self.firsts, self.layout = firsts_of(layout), layout
            while (given := self._queue.get()) is not None:
                record, history = given
                self.payload["records"] += record.nbytes
                records = self._gather(record.view(np.uint8)).reshape(-1).view(RECORD)
                self._answers.append((records, self._parted(records, history)))
                self.answered += 1
        except Exception as error:  # noqa: BLE001 - training is not to end for this
            self.error = error
            self._broken(error)

    def _gather(self, own: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return what every rank gave, [ranks, ...]."""
        flat = np.ascontiguousarray(own).reshape(-1).view(np.uint8)
        given = self._torch.from_numpy(flat.copy())
        taken = self._torch.empty((len(self._ranks), len(flat)), dtype=self._torch.uint8)
        self._dist.all_gather(list(taken.unbind()), given, group=self._group)
        return np.asarray(taken.numpy().view(own.dtype).reshape(len(self._ranks), *own.shape))

    def _parted(self, records: Records, history: History) -> Located | None:
        """Look into a mismatch that was not there at the last exchange."""
        calls = records["calls"].astype(np.int64)
        if self._first is None:
            self._first = calls
            self._camps, self._odd = self.firsts, np.zeros_like(calls)
        now, odd = camps(records["roots"], self.firsts), odd_calls(calls, self._first)
        same = np.array_equal(now, self._camps) and np.array_equal(odd, self._odd)
        aligned = bool((records["step"] == records["step"][0]).all())
        if same or not aligned or self.located >= _MOST_LOCATED:
            return None
        self.located += 1
        found = self._locate(history)
        self._camps, self._odd = now, odd
        return found

    def _locate(self, history: History) -> Located | None:
        assert self.layout is not None and self._first is not None  # noqa: S101, PT018 - gathered
        own = history.rows(self._rows)
        rows = self._gather(own)
        self.payload["mismatches"] += own.nbytes
        steps = rows[0, :, 0]
        for at in range(self._rows):
            if steps[at] < 0 or not (rows[:, at, 0] == steps[at]).all():
                continue
            roots = rows[:, at, 1:3].copy().view(np.uint64)
            odd = odd_calls(rows[:, at, 3], self._first)
            parts = camps(roots, self.firsts)
            if np.array_equal(parts, self._camps) and np.array_equal(odd, self._odd):
                continue
            digests = history.at(int(steps[at]), int(self.layout[:, 2].max()))
            gathered = self._gather(digests)
            self.payload["mismatches"] += digests.nbytes
            return Located(int(steps[at]), self.answered == 0 and at == 0, odd, gathered)
        return None


def firsts_of(layout: Digests) -> npt.NDArray[np.intp]:
    """Return, per rank and set [ranks, 2], the first rank of the same set."""
    made = np.zeros((len(layout), 2), np.intp)
    for kind in range(2):
        _, first, back = np.unique(layout[:, kind], return_index=True, return_inverse=True)
        made[:, kind] = first[back.reshape(-1)]
    return made


def camps(roots: Digests, firsts: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return, per rank and set [ranks, 2], the first rank of its set that holds the same root."""
    made = firsts.copy()
    for kind in range(roots.shape[1]):
        leaders = firsts[:, kind]
        odd = np.flatnonzero(roots[:, kind] != roots[leaders, kind])
        if not len(odd):
            continue
        # Only those that hold another root than the first of their set can make a camp of theirs.
        order = odd[np.lexsort((odd, roots[odd, kind], leaders[odd]))]
        begins = np.ones(len(order), np.bool_)
        begins[1:] = (leaders[order[1:]] != leaders[order[:-1]]) | (
            roots[order[1:], kind] != roots[order[:-1], kind]
        )
        made[order, kind] = order[begins][np.cumsum(begins) - 1]
    return np.asarray(made)


def odd_calls(calls: npt.NDArray[np.int64], first: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return by how many calls since the first exchange each rank is off the majority [ranks]."""
    made: npt.NDArray[np.int64] = (calls - first + 2**31) % 2**32 - 2**31
    if (made == made[0]).all():
        return np.asarray(made - made[0])
    values, votes = np.unique(made, return_counts=True)
    return np.asarray(made - values[np.argmax(votes)])
