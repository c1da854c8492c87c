"""Who does not answer: a thread that outlives a hang of the training."""

from __future__ import annotations

import datetime
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from ..core import FailureMode, Finding, Severity
from ._replica_calls import calls_made, out_of_line
from ._replica_process import identity, state_of

__all__ = ["Watch"]

_NEAR = 8  # ranks behind this one in the ring that it listens to
_PHASES = ("data", "forward", "backward", "optimizer")
_SLOW = 5.0  # times the timeout after which a rank that lives but does not move is told
_DONE, _FAILED = "done", "failed:"


@dataclass(slots=True)
class _Peer:
    """What is known of another rank."""

    identity: str = ""
    beat: str = ""
    changed: float = 0.0  # when the beat was seen to change, by this rank's clock
    stopped: float | None = None  # since when its process is stopped

    @property
    def done(self) -> bool:
        return self.beat.endswith(_DONE)

    @property
    def failed(self) -> str:
        """What it said of its end, where it failed."""
        state = self.beat.split(",", 3)[3] if self.beat.count(",") >= 3 else ""
        return state.removeprefix(_FAILED) if state.startswith(_FAILED) else ""

    @property
    def place(self) -> tuple[int, int]:
        """The last step it closed, and the part of the next one it is in."""
        parts = self.beat.split(",", 3)
        return (int(parts[1]), int(parts[2])) if len(parts) == 4 else (-1, -1)


class Watch:
    """Sends heartbeats through the store of the job and listens to those of other ranks.

    Each rank listens to the eight behind it in the ring, and looks at their
    processes where they run on the same machine. Who finds one silent tells all
    others through the store. Where the store itself is gone, so is its host.

    Parameters
    ----------
    rank : int
    ranks : sequence of int
    timeout : float
        Seconds without a heartbeat after which a rank counts as silent.
    place : callable
        Returns the last step this rank has closed and the phase it is in.
    found : callable
        Takes a finding, on the thread of the watch.
    """

    def __init__(
        self, rank: int, ranks: Sequence[int], timeout: float,
        place: Callable[[], tuple[int, str]], found: Callable[[list[Finding]], None],
    ) -> None:  # fmt: skip
        dist = import_module("torch.distributed")
        c10d = import_module("torch.distributed.distributed_c10d")
        self._timeout, self._place, self._found = timeout, place, found
        self._rank, self._ranks = rank, list(ranks)
        self._every = min(5.0, timeout / 4)
        store = c10d._get_default_store().clone()  # a connection of its own
        store.set_timeout(datetime.timedelta(seconds=timeout))
        # Ranks that build several monitors do so in the same order.
        Watch._built += 1
        self._store: Any = dist.PrefixStore(f"mlsd{Watch._built}", store)
        at = self._ranks.index(rank)
        ring = self._ranks[at + 1 :] + self._ranks[:at]
        self._peers = {one: _Peer() for one in ring[:_NEAR]}
        self._identity = identity()
        self._beats = self._heard = 0
        self._state = ""
        self.silent: dict[int, str] = {}
        """Ranks that do not answer, and why that is known."""
        self._store_lost = 0
        self._behind: set[int] = set()
        self._compared: tuple[int, str] | None = None  # where the calls were compared
        self._moved = time.monotonic(), (-1, "")
        self._wake, self._over = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="mlsd-watch", daemon=True)
        self._thread.start()

    _built = 0

    def hurry(self) -> None:
        """Look now: something has broken."""
        self._wake.set()

    def close(self, why: str = "") -> None:
        """Tell the others that this rank has ended, well or for the reason `why`."""
        self._state = _FAILED + why if why else _DONE
        self._over = True
        self._wake.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(self._timeout)

    def _run(self) -> None:
        hello = False
        while not self._over:
            hello = hello or self._with_store(self._hello)
            self._with_store(self._beat)
            self._with_store(self._listen)
            self._look()
            before = time.monotonic()
            self._wake.wait(self._every)
            self._wake.clear()
            self._woke(before, time.monotonic())
        self._with_store(self._beat)
        if self._rank == 0 and not _agent():
            self._stay()

    def _woke(self, before: float, now: float) -> None:
        """Begin to wait anew where this thread itself has slept for long: the whole job may have.

        After the machine was suspended, or all processes were stopped, the others
        need a moment, too, before they are heard.
        """
        if now - before > self._every + self._timeout / 2:
            self._moved = now, self._moved[1]
            for peer in self._peers.values():
                peer.changed, peer.stopped = now, None

    def _stay(self) -> None:
        """Keep the store that this rank holds until the others have heard how it ended."""
        until = time.monotonic() + 2.0 * self._every
        while time.monotonic() < until:
            if not self._with_store(self._listen):
                return
            if all(p.done or p.failed or r in self.silent for r, p in self._peers.items()):
                return
            time.sleep(0.02)

    def _with_store(self, call: Callable[[], None]) -> bool:
        """Return whether the store did it; where it does not answer its host is silent."""
        if self._store_lost >= 2:
            return False
        try:
            call()
        except Exception as error:  # noqa: BLE001 - whatever it is, the watch goes on
            self._store_lost += 1
            if self._store_lost == 2 and not self._over:
                self._lost(error)
            return False
        self._store_lost = 0
        return True

    def _hello(self) -> None:
        self._store.set(f"who/{self._rank}", self._identity)

    def _beat(self) -> None:
        self._beats += 1
        step, phase = self._place()
        at = _PHASES.index(phase) if phase in _PHASES else 0
        self._store.set(f"beat/{self._rank}", f"{self._beats},{step},{at},{self._state}")

    def _listen(self) -> None:
        now = time.monotonic()
        known = [
            one for one, peer in self._peers.items()
            if peer.beat or self._store.check([f"beat/{one}"])
        ]  # fmt: skip
        beats = self._store.multi_get([f"beat/{one}" for one in known]) if known else []
        for one, beat in zip(known, beats, strict=True):
            peer = self._peers[one]
            if not peer.identity and self._store.check([f"who/{one}"]):
                peer.identity = self._store.get(f"who/{one}").decode()
            if beat.decode() != peer.beat:
                peer.beat, peer.changed = beat.decode(), now
        told = self._store.add("told", 0)
        while self._heard < told:
            rank, _, why = self._store.get(f"told/{self._heard}").decode().partition(",")
            self._heard += 1
            if int(rank) not in self.silent and int(rank) != self._rank:
                self._name(int(rank), why, tell=False)

    def _look(self) -> None:
        now = time.monotonic()
        for rank, peer in self._peers.items():
            if rank in self.silent or peer.done:
                continue
            if peer.failed:
                self._name(rank, peer.failed)
                continue
            state = state_of(peer.identity, self._identity)
            if state == "is gone":
                why = self._last_word(rank, peer)
                if why is not None:
                    self._name(rank, why)
                continue
            peer.stopped = (peer.stopped or now) if state else None
            if peer.stopped is not None and now - peer.stopped > self._timeout:
                self._name(rank, "its process is stopped (SIGSTOP, or a debugger)")
            elif peer.beat and not self._store_lost and now - peer.changed > self._timeout:
                why = " and its process is stopped" if state else ""
                self._name(rank, f"no heartbeat for {now - peer.changed:.0f} s{why}")
        self._stuck(now)

    def _last_word(self, rank: int, peer: _Peer) -> str | None:
        """Return why a rank whose process is gone has gone; None where it ended well."""
        try:
            if self._store_lost:
                raise RuntimeError("the store does not answer")
            peer.beat = self._store.get(f"beat/{rank}").decode()
        except Exception:  # noqa: BLE001 - the store went with it
            # Without the store the others end too: only its host is told of, or who was first.
            alone = not self.silent and (rank == 0 or _agent())
            return "its process is gone" if alone else None
        return None if peer.done else peer.failed or "its process is gone"

    def _stuck(self, now: float) -> None:
        """Tell of a rank that lives but is behind while this one has long not moved."""
        place = self._place()
        if place != self._moved[1]:
            self._moved = now, place
            self._behind.clear()
        if now - self._moved[0] < _SLOW * self._timeout or self.silent or place[0] < 0:
            return
        if self._compared != place:
            try:
                mine = calls_made()
            except Exception as error:  # noqa: BLE001 - torch keeps them where it may move them
                self._compared = place
                sys.stderr.write(f"collective calls of a job that hangs are not known: {error!r}\n")
            else:
                self._with_store(lambda: self._compare_calls(place, now, mine))
        here = (place[0], _PHASES.index(place[1]))
        for rank, peer in self._peers.items():
            if peer.beat and not peer.done and peer.place < here and rank not in self._behind:
                self._behind.add(rank)
                waited, (step, phase) = now - self._moved[0], peer.place
                self._tell(
                    rank, step + 1, Severity.MEDIUM,
                    f"Replica {rank} lives but is still at step {step + 1} ({_PHASES[phase]}), "
                    f"while replica {self._rank} has waited for {waited:.0f} s at step "
                    f"{place[0] + 1} ({place[1]}).",
                    {"rule": "did_not_join", "waits_in": place[1], "last_seen_step": step},
                )  # fmt: skip

    def _compare_calls(self, place: tuple[int, str], now: float, mine: list[int]) -> None:
        """Where all hang at the same place, tell of the rank whose collective calls are odd."""
        self._store.set(f"calls/{self._rank}", f"{place[0]}:{','.join(map(str, mine))}")
        listened = [one for one, peer in self._peers.items() if not peer.done]
        if not self._store.check([f"calls/{one}" for one in listened]):
            return  # some do not hang, or not yet for so long
        told = self._store.multi_get([f"calls/{one}" for one in listened])
        calls = {self._rank: mine}
        for rank, text in zip(listened, told, strict=True):
            step, _, numbers = text.decode().partition(":")
            if int(step) != place[0]:
                return
            calls[rank] = [int(one) for one in numbers.split(",") if one]
        self._compared = place
        found = out_of_line(calls)
        if found is None or found[0] in self._behind:
            return
        (rank, how), waited = found, now - self._moved[0]
        self._behind.add(rank)
        how_odd = (
            "has left out a collective call that the others made, or made another: its calls are "
            "in another order than theirs"
            if how == "order"
            else "has made fewer collective calls than any other: they wait for it"
        )
        self._tell(
            rank, place[0] + 1, Severity.HIGH if how == "order" else Severity.MEDIUM,
            f"The job has hung for {waited:.0f} s at step {place[0] + 1} ({place[1]}), with all "
            f"ranks alive: replica {rank} {how_odd}.",
            {
                "rule": "did_not_join", "waits_in": place[1], "last_seen_step": place[0],
                "calls": {str(one): list(made) for one, made in sorted(calls.items())},
            },
            FailureMode.GRADIENT_DESYNC if how == "order" else FailureMode.PARTIAL_WORKER_FAILURE,
        )  # fmt: skip

    def _lost(self, error: Exception) -> None:
        text = str(error).strip().splitlines()
        why = f"the store it holds does not answer: {(text or [''])[0][:120]}"
        if _agent():  # torchrun's agent holds it, no rank
            self._tell(
                None, self._place()[0] + 1, Severity.HIGH,
                f"The store of the job, which the agent of the first node holds, is lost: {why}.",
                {"rule": "stopped", "last_seen_step": self._place()[0]},
            )  # fmt: skip
        elif self._rank != 0 and not self.silent and not self._ended(0):
            self._name(0, why, tell=False)

    def _ended(self, rank: int) -> bool:
        return rank in self._peers and self._peers[rank].done

    def _name(self, rank: int, why: str, *, tell: bool = True) -> None:
        self.silent[rank] = why
        if tell:
            self._with_store(lambda: self._spread(rank, why))
        peer = self._peers.get(rank)
        step = self._place()[0] + 1  # in lock-step it hangs where this one does
        last = peer.place[0] if peer is not None else -1
        self._tell(
            rank, step, Severity.CRITICAL,
            f"Replica {rank} has stopped answering at step {step}: {why}. Replica {self._rank} "
            f"and the others wait for it.",
            {"rule": "stopped", "why": why, "last_seen_step": last},
        )  # fmt: skip

    def _spread(self, rank: int, why: str) -> None:
        # Told and counted in this order: who reads the count finds the text.
        mine = self._store.add("telling", 1) - 1
        self._store.set(f"told/{mine}", f"{rank},{why}")
        self._store.add("told", 1)
        if mine == self._heard:
            self._heard += 1

    def _tell(
        self, rank: int | None, step: int, severity: Severity, message: str, more: dict[str, Any],
        mode: FailureMode = FailureMode.PARTIAL_WORKER_FAILURE,
    ) -> None:  # fmt: skip
        evidence = {
            "series": "heartbeat", "quantity": "heartbeat", "quantities": ("heartbeat",),
            "replicas": len(self._ranks), "goes_on": True, "onset_step": step, **more,
        }  # fmt: skip
        finding = Finding(
            mode, severity, 0.95, step, None, None, rank, message,
            evidence, f"replica_agreement:silent:{rank}:{step}",
        )  # fmt: skip
        try:
            self._found([finding])
        except Exception as error:  # noqa: BLE001 - the watch goes on
            sys.stderr.write(f"telling of a silent replica failed: {error}\n")


def _agent() -> bool:
    """Whether the launcher holds the store, and not rank 0."""
    return "TORCHELASTIC_RUN_ID" in os.environ
