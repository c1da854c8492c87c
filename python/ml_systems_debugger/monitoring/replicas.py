"""`ReplicaAgreement`: the ranks of a job watch each other."""

from __future__ import annotations

import atexit
import math
import os
import sys
import threading
import time
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..core import (
    ConfigurationError,
    DetectionResult,
    Finding,
    MissingDependencyError,
    check_count,
    check_range,
)
from ._hooks import Hooks
from ._judges import failed_results
from ._measures import MakeKey
from ._probe import Probe
from ._replica_channel import Answer, Channel
from ._replica_judge import Judge
from ._replica_record import BLOCKS, Digests, History, record_of
from ._replica_sets import Compared
from ._replica_times import OwnWork
from ._replica_watch import Watch
from ._steps import StepBuffer
from .actions import FaultFound

if TYPE_CHECKING:
    from .monitor import Monitor

__all__ = ["ReplicaAgreement", "Replicas"]

_LEAST_LAG = 4  # steps between an exchange and its judgement
_ROWS = 64  # steps looked back to at a mismatch


@dataclass(frozen=True)
class ReplicaAgreement:
    """How the ranks of a job watch each other; see the `replicas` option of `Monitor`.

    Parameters
    ----------
    every : int
        Steps between two exchanges.
    digest_every : int
        Steps between two digests of the parameters: the exactness with which the
        step of a mismatch is named. At most 64 are kept of one exchange.
    group : torch.distributed.ProcessGroup, optional
        The ranks that watch each other; default: all. All of them make their
        monitors at the same place.
    timeout : float
        Seconds after which a rank without a heartbeat counts as silent.

    Examples
    --------
    >>> from ml_systems_debugger import ReplicaAgreement
    >>> ReplicaAgreement(every=50).timeout
    60.0
    """

    every: int = 16
    digest_every: int = 1
    group: Any = None
    timeout: float = 60.0

    def __post_init__(self) -> None:
        check_count(1, every=self.every, digest_every=self.digest_every)
        check_range("timeout", self.timeout, 0.1, 86400.0)

    @classmethod
    def of(cls, given: Any) -> ReplicaAgreement:
        """Return `given` itself, or the defaults for True."""
        if given is True:
            return cls()
        if not isinstance(given, cls):
            raise ConfigurationError(f"replicas is True or a ReplicaAgreement, got {given!r}")
        return given


class Replicas(Probe):
    """Tells the other ranks of this one's steps, and judges what they tell.

    Exchanges are issued at fixed steps and judged at fixed later ones (where the
    answer is late, when it has come), so that all ranks of a job in lock-step find
    the same at the same step, and none ever waits.
    """

    what = "the agreement of replicas"

    def __init__(
        self, model: Any, optimizer: Any, monitor: Monitor, options: ReplicaAgreement
    ) -> None:
        try:
            dist = import_module("torch.distributed")
        except ImportError as error:
            raise MissingDependencyError("replicas need torch, with torch.distributed") from error
        if not (dist.is_available() and dist.is_initialized()):
            raise ConfigurationError(
                "replicas need torch.distributed: call init_process_group before making the monitor"
            )
        if model is None:
            raise ConfigurationError("replicas are compared by their model: give the monitor one")
        self._model, self._monitor, self._options = model, monitor, options
        self.rank = dist.get_rank()
        group = dist.group.WORLD if options.group is None else options.group
        self.ranks: list[int] = dist.get_process_group_ranks(group)
        self._counted = group
        self._compared = Compared(model, self.rank, self.ranks)
        self._stride = max(options.digest_every, math.ceil(options.every / _ROWS))
        self._hooks = Hooks(self, monitor._probes)
        self._work = OwnWork(model, optimizer, self._hooks)
        self._lock = threading.RLock()
        self._step = self._last = -1
        self._seen = 0  # steps since the last exchange
        self._began = time.perf_counter()
        self._history: History = _nothing()
        self._due: list[tuple[int, Answer]] = []
        self._closed = False
        self._silences: list[Finding] = []
        rows = min(_ROWS, math.ceil(options.every / self._stride) + 1)
        self._watch = Watch(
            self.rank, self.ranks, options.timeout, self._place, self._silent
        )  # fmt: skip
        limit = max(1800.0, 2.0 * options.timeout)
        self.channel = Channel(self.ranks, rows, self._compared.layout(), limit, self._broken)
        self._judge = Judge(
            monitor._debugger.detectors, monitor.context, monitor._strict, self.ranks,
            self._compared.names, self._compared.kind_of(),
        )  # fmt: skip
        self._work.interval(options.every)
        if self._compared.left_out:
            monitor._troubles.say(
                self.what, "leaves out some parameters",
                f"{self._compared.left_out} are shared by a third set of ranks",
            )  # fmt: skip
        atexit.register(self._last_words)

    def _place(self) -> tuple[int, str]:
        return self._step, self._work.phase

    # The step.

    def put(self, buffer: StepBuffer, key: MakeKey) -> bool:  # noqa: ARG002 - nothing of its own
        """Take the digests of a step; at every so many of them send a record."""
        step = buffer.steps[-1]
        if step <= self._step:  # the run went back: all ranks did
            self._history, self._seen, self._last = _nothing(), 0, step - 1
        self._work.stepped()
        self._seen += 1
        every = self._options.every
        exchange = (step + 1) // every > (self._step + 1) // every or self._seen > every
        if self.channel.open and (exchange or step % self._stride == 0):
            self._keep(step)
        self._step = step
        if exchange and self.channel.open:
            self._send(buffer)
        ahead = (step + 2) // every > (step + 1) // every
        self._work.look = ahead
        self._work.resumed()
        return False

    def _keep(self, step: int) -> None:
        held = self._history
        if len(held.steps) >= _ROWS:
            return
        digests: Digests = self._compared.digests()
        held.steps.append(step)
        held.digests.append(digests)
        held.roots.append(self._compared.roots(digests))
        held.calls.append(int(self._counted._get_sequence_number_for_group()))

    def _send(self, buffer: StepBuffer) -> None:
        now = time.perf_counter()
        losses = [value for key, value in buffer.scalars() if key.name == "loss"]
        scalars = {"step_time": (now - self._began) / self._seen}
        known = {
            "loss": losses[-1] if losses else None,
            "local_norm": self._work.local_norm,
            "grad_norm": self._work.grad_norm,
        }
        scalars.update((name, value) for name, value in known.items() if value is not None)
        times = self._work.blocks()[:BLOCKS]
        record = record_of(self._history, times, scalars, self._seen)
        self.channel.send(record, self._history)
        if self._compared.stale():
            raise RuntimeError(
                "the model has other parameters than when the monitor was made: make it after "
                "the model is wrapped, sharded and moved"
            )
        self._history, self._seen, self._began = _nothing(), 0, now
        self._work.interval(self._options.every)

    def findings(self, step: int) -> list[Finding]:
        """Return what exchanges of earlier steps say."""
        lag = max(self._options.every, _LEAST_LAG)
        found: list[Finding] = []
        with self._lock:
            self._due += [(int(one[0]["step"].max()) + lag, one) for one in self.channel.answers()]
            while self._due and self._due[0][0] <= step:
                found += self._judge.take(self._due.pop(0)[1], self.channel.firsts)
        return found

    def _all_judged(self) -> list[Finding]:
        answers = [one for _, one in self._due] + self.channel.answers()
        self._due = []
        firsts = self.channel.firsts
        return [found for one in answers for found in self._judge.take(one, firsts)]

    # What does not wait for the next step.

    def _silent(self, found: list[Finding]) -> None:
        """Tell of a silent rank at once, on the thread of the watch: training may hang."""
        with self._lock:
            self._silences += found
            found = [*self._all_judged(), *found]  # what the last exchanges said may be why
        if self._monitor._at_once(found):
            self._end(self._step)

    def _end(self, step: int) -> None:
        """End the process where the training does not come back to be ended."""
        grace = max(5.0, self._options.timeout)

        def wait() -> None:
            time.sleep(grace)
            if self._step == step and not self._closed:
                sys.stderr.write(
                    f"rank {self.rank}: the training hangs, and ends as action="
                    f"{self._monitor._actions.action!r} asks for\n"
                )
                sys.stderr.flush()
                os._exit(1)

        threading.Thread(target=wait, name="mlsd-end", daemon=True).start()

    def _broken(self, _: Exception) -> None:
        """Take the end of the exchange: a rank may be gone."""
        self._watch.hurry()

    def _last_words(self) -> None:
        """Say how this process ends; where another is the reason, first name that one."""
        if self._closed:
            return
        self._closed = True
        error = sys.exc_info()[1] or getattr(sys, "last_value", None)
        why = ""
        if error is not None and not _of_others(error) and not isinstance(error, FaultFound):
            why = f"it raised {type(error).__name__}: {str(error)[:80]}"
        elif error is not None or not self.channel.open:
            self._watch.hurry()
            until = time.monotonic() + min(30.0, 2.0 * self._options.timeout)
            while not self._watch.silent and time.monotonic() < until:
                time.sleep(0.02)
        self._watch.close(why)

    def conclusions(self) -> list[DetectionResult]:
        """Return what was found, and what did not run."""
        with self._lock:
            results = self._judge.conclusions()
            for mode in dict.fromkeys(one.failure_mode for one in self._silences):
                results.append(DetectionResult.of_findings(
                    mode, "replica_watch", [f for f in self._silences if f.failure_mode == mode],
                    judged=("heartbeat",),
                ))  # fmt: skip
            failed = dict(self._judge.failed)
        if not self.channel.open and not self._silences:
            failed["the exchange between replicas"] = repr(self.channel.error)
        return results + failed_results(failed)

    def drain(self) -> list[Finding]:
        """Return what is still to come, after at most a few seconds."""
        if self._closed:
            return []
        if self.channel.open and not self._watch.silent and sys.exc_info()[1] is None:
            self.channel.close(min(10.0, self._options.timeout))
        with self._lock:
            return self._all_judged()

    def detach(self) -> None:
        """Take the hooks off, and tell the others that this rank has ended, and how."""
        self._hooks.detach()
        self._last_words()
        atexit.unregister(self._last_words)


def _of_others(error: BaseException) -> bool:
    """Whether an error says that another rank is gone."""
    text = str(error)
    return (
        any(kind.__name__ == "DistError" for kind in type(error).__mro__)
        or "gloo" in text or "NCCL" in text
    )  # fmt: skip


def _nothing() -> History:
    return History([], [], [], [])
