"""The contracts at the edges: `BaseDetector`, `BaseIngestor`, `BaseSignalExtractor`."""

from __future__ import annotations

import dataclasses
import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from .errors import RegistryError
from .finding import Event
from .fold_state import DetectorState, FoldState, HistoryState
from .results import DetectionResult, Outcome
from .rules import AttributionRule
from .sensitivity import Scale, check_sensitivity, scaled
from .series import SeriesKey
from .signal import Signal
from .signal_set import SignalSet
from .vocabulary import FailureModeLike

__all__ = [
    "BaseDetector",
    "BaseIngestor",
    "BaseReporter",
    "BaseSignalExtractor",
    "BaseStream",
    "Context",
]

Context = Mapping[str, Any]
_Detector = TypeVar("_Detector", bound="BaseDetector")


class BaseDetector(ABC):
    """Finds one failure mode; a fold over the history of a run.

    Write either `detect` alone, or `init`, `update` and `conclude`, of which
    `detect` is then made. A detector holds parameters only; what it remembers
    of a run is in the state, so one instance may serve many runs and threads.

    The three together::

        state = detector.init(context)
        for chunk in history:
            events = detector.update(state, chunk)
        result = detector.conclude(state)

    `update` sees closed steps and never knows how long the run will be; the
    result does not depend on how the history is cut into chunks. `conclude`
    changes nothing and may be asked at any time.

    Examples
    --------
    >>> class TooLoud(BaseDetector):
    ...     failure_mode = "loss_spike"
    ...     def get_required_signals(self):
    ...         return ["loss"]
    ...     def detect(self, signals, context=None):
    ...         loud = [s for s in signals if s.value > 100]
    ...         return DetectionResult(self.failure_mode, bool(loud), 1.0 if loud else 0.0,
    ...                                detector_name=self.name, contributing_signals=loud)
    >>> TooLoud().detect([Signal("loss", 101.0, step=7)]).detected
    True
    """

    name: ClassVar[str] = ""
    """Name in the registry and in reports; by default the class name in snake case."""

    failure_mode: ClassVar[FailureModeLike]
    """What it finds."""

    required_signals: ClassVar[tuple[str, ...]] = ()
    """What `get_required_signals` returns unless it is overridden."""

    attribution_rules: ClassVar[tuple[AttributionRule, ...]] = ()
    """What its findings say of causes."""

    sensitivity_scales: ClassVar[Mapping[str, Scale]] = {}
    """How its thresholds follow the one knob; see `at_sensitivity`."""

    latency: ClassVar[int] = 0
    """Steps that a live monitor may hold back before they are judged: 0 for none.

    What is found is the same, told so much later. Whatever is not finite, or is to be
    judged at once for another reason, ends the wait."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            words = r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])"
            cls.name = re.sub(words, "_", cls.__name__).lower()
        given: object = cls.required_signals
        if isinstance(given, str):
            raise RegistryError(
                f"{cls.__qualname__}.required_signals is a tuple of names, got the text {given!r}"
            )
        fold = [cls.update is not BaseDetector.update, cls.conclude is not BaseDetector.conclude]
        own_detect = cls.detect is not BaseDetector.detect
        if not inspect.isabstract(cls) and not own_detect and any(fold) and not all(fold):
            raise RegistryError(
                f"{cls.__qualname__} writes only one of update and conclude: "
                f"write detect alone, or init, update and conclude together"
            )

    def get_required_signals(self) -> Sequence[str]:
        """Return the quantities it reads, by canonical name; empty for every quantity.

        It is skipped, with a reason, where none of them is there.
        """
        return self.required_signals

    def reads(self, key: SeriesKey) -> bool:  # noqa: ARG002 - for subclasses
        """Return whether `update` takes anything from a series of `key`.

        By itself or beside others. Where it reads none of a chunk, a live monitor
        leaves the look out: `update` would change nothing there. The answer to a key
        is always the same.
        """
        return True

    def at_sensitivity(self: _Detector, sensitivity: float) -> _Detector:
        """Return the same detector with thresholds that find more (above 1) or less (below 1).

        Parameters
        ----------
        sensitivity : float
            From 0.05 to 20. Distances are divided by it, in logarithms for
            ratios: at 2, six standard deviations are three, and a hundredfold
            rise is a tenfold one. Parameters that were set otherwise than by
            default stay, and so does a detector that has no threshold.
        """
        check_sensitivity(sensitivity)
        if sensitivity == 1.0 or not self.sensitivity_scales:
            return self
        parameters = dataclasses.fields(self)  # type: ignore[arg-type]  # who has scales is one
        held = {one.name: getattr(self, one.name) for one in parameters}
        moved = scaled(parameters, held, self.sensitivity_scales, sensitivity)
        return dataclasses.replace(self, **moved) if moved else self  # type: ignore[type-var]

    def init(self, context: Context | None = None) -> DetectorState:
        """Return a fresh state.

        Parameters
        ----------
        context : mapping, optional
            What is known of the run beside its signals (configuration, number
            of classes, ...). Read-only.
        """
        return HistoryState(self.name, context)

    def update(self, state: Any, chunk: SignalSet) -> Sequence[Event]:
        """Fold a run of closed steps into `state`, in place; return what changed."""
        if not isinstance(state, HistoryState):
            raise TypeError(f"{self.name}: {type(state).__name__} is no state of this detector")
        if type(self).detect is BaseDetector.detect:
            raise RegistryError(f"{type(self).__qualname__} writes neither detect nor the fold")
        state.add(chunk)
        return ()

    def conclude(self, state: Any) -> DetectionResult:
        """Return what `state` says of the run so far; changes nothing."""
        if not isinstance(state, HistoryState):
            raise TypeError(f"{self.name}: {type(state).__name__} is no state of this detector")
        return self.detect(state.history, state.context)

    def detect(
        self, signals: SignalSet | Sequence[Signal], context: Context | None = None
    ) -> DetectionResult:
        """Judge a whole history.

        Parameters
        ----------
        signals : SignalSet or sequence of Signal
        context : mapping, optional
            As for `init`.
        """
        state = self.init(context)
        self.update(state, SignalSet.of(signals))
        return self.conclude(state)

    def restore(self, data: bytes, context: Context | None = None) -> DetectorState:
        """Return the state that ``state.to_bytes()`` saved.

        Raises
        ------
        ValueError
            If `data` is damaged or of another detector.
        """
        state = self.init(context)
        if not isinstance(state, (FoldState, HistoryState)):
            raise TypeError(f"{self.name} has a state of its own; it restores it itself")
        state.restore(data)
        return state

    def _silent(self, outcome: Outcome, reason: str) -> DetectionResult:
        """Return the result that says nothing of the run, and why."""
        return DetectionResult(
            self.failure_mode, False, 0.0, detector_name=self.name, outcome=outcome, reason=reason
        )


class BaseIngestor(ABC):
    """Turns one kind of source into signals."""

    name: ClassVar[str] = ""

    @abstractmethod
    def ingest(self, source: Any) -> SignalSet | Sequence[Signal]:
        """Read `source` (a path, a file object, rows, arrays) whole.

        Raises
        ------
        IngestionError
            With file, place and value, where it cannot be read.
        """

    def validate_schema(self, data: Any) -> bool:  # noqa: ARG002 - for subclasses
        """Return whether `data` is something that `ingest` understands."""
        return True

    def sniff(self, head: bytes, name: str) -> float:  # noqa: ARG002 - for subclasses
        """Return from 0 (no) to 1 (certain) whether a file is of this kind.

        Parameters
        ----------
        head : bytes
            Its first 64 KiB, decompressed where it is gzipped.
        name : str
            Its file name, for hints only: content decides.
        """
        return 0.0

    def stream(self, head: bytes, name: str) -> BaseStream | None:  # noqa: ARG002 - for subclasses
        """Return a reader of files of this kind piece by piece; None where they are read whole.

        Parameters
        ----------
        head : bytes
            The first bytes of the file, up to 64 KiB; they are fed again.
        name : str
            The name of the file, for messages.
        """
        return None


class BaseStream(ABC):
    """Reads one source piece by piece, as it grows or as it is too large to be held.

    Bytes go in as they come, closed steps come out: a step is closed when
    nothing more is expected for it.
    """

    @abstractmethod
    def feed(self, data: bytes) -> None:
        """Take the next bytes of the file, as many as there are.

        Raises
        ------
        IngestionError
            With file, place and value, where they break the format's rules.
        """

    @abstractmethod
    def take(self) -> SignalSet:
        """Return the closed steps that are new since the last call."""

    @abstractmethod
    def begin_anew(self, name: str) -> SignalSet:
        """Take what follows as another file of the same run, which goes on or restarts.

        Parameters
        ----------
        name : str
            Of the file, for messages.

        Returns
        -------
        SignalSet
            The closed steps that are new, as `take` gives them.
        """

    @abstractmethod
    def finish(self, damage: Sequence[str] = ()) -> SignalSet:
        """Return what is left, with the metadata and the unread parts of the whole source.

        Parameters
        ----------
        damage : sequence of str
            What ended the source before its end, one sentence each.

        Raises
        ------
        IngestionError
            If the whole was no such source: empty, or with more that is wrong than right.
        """


class BaseSignalExtractor(ABC):
    """Derives signals from raw data, or from signals."""

    name: ClassVar[str] = ""

    @abstractmethod
    def extract(self, raw_data: Any) -> SignalSet | Sequence[Signal]:
        """Return the signals in `raw_data`: arrays, tensors, mappings of them, or a SignalSet.

        Inside a debugging session `raw_data` is the ingested `SignalSet`, and
        what comes back stands beside it.
        """


class BaseReporter(ABC):
    """Writes a report in one format."""

    name: ClassVar[str] = ""

    @abstractmethod
    def render(self, report: Any) -> str:
        """Return `report` (a `DebugReport`) as text."""
