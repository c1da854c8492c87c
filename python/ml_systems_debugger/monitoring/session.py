"""`Session`: a run diagnosed part by part. `Follower`: while a job still writes it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..configuration import Configuration
from ..core import (
    BaseDetector,
    DebugReport,
    Finding,
    SignalSet,
)
from ..debugger import MLSystemsDebugger
from ..ingestion import Tail, read_pieces
from ._judges import Judges, failed_results

__all__ = ["Follower", "Session", "diagnose_pieces"]

Narrow = Callable[[SignalSet], SignalSet]


class Session:
    """Folds the detectors over a run that is given part by part.

    What is kept is what the detectors remember: memory does not grow with the
    run, unless a detector of one's own writes `detect` alone. The report is the
    one that the whole run would give.

    Parameters
    ----------
    debugger : MLSystemsDebugger, optional
        Whose detectors, extractors and rules are used.
    context : mapping, optional
        Facts of the run, as for `MLSystemsDebugger.debug`.

    Examples
    --------
    >>> from ml_systems_debugger.ingestion import open_source
    >>> run = open_source({"loss": [2.0, 1.5, 1.0, float("nan")]})
    >>> session = Session()
    >>> session.update(run.between(0, 3))
    []
    >>> session.update(run.between(3, None))[0].onset_step
    3
    >>> session.report().status.value
    'failures'
    """

    def __init__(
        self,
        debugger: MLSystemsDebugger | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        self._debugger = MLSystemsDebugger() if debugger is None else debugger
        self._context = {**self._debugger.config.context, **(context or {})}
        self._judges = Judges(self._debugger.detectors, self._context, strict=False)
        self._names: set[str] = set()
        self._series: set[Any] = set()
        self._span: tuple[int, int] | None = None
        self._facts: dict[str, Any] = {}
        self._unread: dict[str, None] = {}
        self.measurements = 0

    @property
    def last_step(self) -> int | None:
        """The last step that was judged."""
        return None if self._span is None else self._span[1]

    def update(self, part: SignalSet) -> list[Finding]:
        """Take the next closed steps; return findings that are new, or worse than they were."""
        self._facts.update(part.metadata)
        part = self._debugger.extract(part) if part.series else part
        self._unread.update(dict.fromkeys(part.unread))
        span = part.step_range
        if span is None:
            return []
        self._span = span if self._span is None else (
            min(self._span[0], span[0]), max(self._span[1], span[1])
        )  # fmt: skip
        self._names.update(part.names)
        self._series.update(part.keys)
        self.measurements += len(part)
        return self._judges.update(part)

    def report(self) -> DebugReport:
        """Return the report on the run so far, with causes."""
        results = self._judges.conclude(self._names)
        results += failed_results(self._judges.failed)
        first, last = self._span or (None, None)
        facts = {
            **self._facts, "series": len(self._series), "measurements": self.measurements,
            "first_step": first, "last_step": last,
        }  # fmt: skip
        return self._debugger.conclude(
            results,
            self._context,
            signals=SignalSet((), facts, self._unread),
            skipped=self._judges.skipped(self._names),
        )


def diagnose_pieces(
    source: Any,
    *,
    mapping: Mapping[str, str] | None = None,
    debugger: MLSystemsDebugger | None = None,
    context: Mapping[str, Any] | None = None,
    narrow: Narrow | None = None,
    on_progress: Callable[[SignalSet], None] | None = None,
) -> DebugReport:
    r"""Diagnose a run of any length in bounded memory, piece by piece.

    Parameters
    ----------
    source : path, ``-``, bytes or file object
        As for `read_pieces`.
    mapping : mapping of str to str, optional
        Column name to the name it should be read under.
    debugger, context : optional
        As for `Session`.
    narrow : callable, optional
        Leaves out of each piece what is not wanted.
    on_progress : callable, optional
        Gets every piece once it was judged.

    Raises
    ------
    IngestionError, OSError
        As for `read_pieces`.

    Examples
    --------
    >>> text = b"step,loss" + b"".join(b"\n%d,%g" % (s, 2 / (s + 1)) for s in range(500))
    >>> diagnose_pieces(text).status.value
    'healthy'
    """
    session = Session(debugger, context)
    for piece in read_pieces(source, mapping=mapping):
        session.update(piece if narrow is None else narrow(piece))
        if on_progress is not None:
            on_progress(piece)
    return session.report()


class Follower:
    r"""Diagnoses a run while a job still writes its file.

    Every `poll` reads what is new and no more; see `Tail` for what can be
    followed.

    Parameters
    ----------
    path : path or ``-``
    mapping : mapping of str to str, optional
        Column name to the name it should be read under.
    detectors : iterable of BaseDetector, optional
    config : Configuration, mapping or path of a TOML file, optional
    context : mapping, optional
        As for `MLSystemsDebugger`.
    narrow : callable, optional
        Leaves out what is not wanted.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "train.log"
    >>> _ = file.write_text("step 1: loss 2.5\nstep 2: loss nan\nstep 3: loss nan\n")
    >>> follower = Follower(file)
    >>> [(f.failure_mode.value, f.onset_step) for f in follower.poll()]
    [('nan_detected', 2)]
    >>> follower.finish().status.value
    'failures'
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        mapping: Mapping[str, str] | None = None,
        detectors: Iterable[BaseDetector] | None = None,
        config: Configuration | Mapping[str, Any] | str | os.PathLike[str] | None = None,
        context: Mapping[str, Any] | None = None,
        narrow: Narrow | None = None,
    ) -> None:
        self.tail = Tail(path, mapping=mapping)
        self._narrow = narrow
        self._session = Session(MLSystemsDebugger(detectors, config=config), context)

    @property
    def last_step(self) -> int | None:
        """The last step that was judged."""
        return self._session.last_step

    def poll(self) -> list[Finding]:
        """Judge what is new, up to 32 MiB of it; return findings that are new or worse.

        Raises
        ------
        IngestionError, OSError
            As for `Tail.read`.
        """
        return self._judged(self.tail.read())

    def report(self, unread: Iterable[str] = ()) -> DebugReport:
        """Return the report on what was judged so far; the job may go on.

        Parameters
        ----------
        unread : iterable of str
            What could not be read beside it, one sentence each.
        """
        self._session.update(SignalSet((), {"source": self.tail.path}, unread))
        return self._session.report()

    def finish(self) -> DebugReport:
        """Read what is left, let the file go, and return the report on the whole.

        Raises
        ------
        IngestionError, OSError
            As for `Tail.finish`.
        """
        self._judged(self.tail.finish())
        return self._session.report()

    def close(self) -> None:
        """Let the file go."""
        self.tail.close()

    def _judged(self, part: SignalSet) -> list[Finding]:
        return self._session.update(part if self._narrow is None else self._narrow(part))
