"""The contracts: what a class of one's own may leave out, and what it is told."""

from __future__ import annotations

from typing import Any

import pytest

from ml_systems_debugger.core import (
    BaseDetector,
    BaseIngestor,
    BaseSignalExtractor,
    DetectionResult,
    FoldState,
    HistoryState,
    RegistryError,
    Signal,
    SignalSet,
)

SIGNALS = [Signal("loss", float(v), step=v) for v in range(5)]


class Largest(BaseDetector):
    """Writes `detect` alone."""

    failure_mode = "loss_spike"
    required_signals = ("loss",)

    def detect(self, signals: Any, context: Any = None) -> DetectionResult:
        limit = (context or {}).get("limit", 3)
        loud = [s for s in signals if s.value > limit]
        return DetectionResult(self.failure_mode, bool(loud), 1.0 if loud else 0.0,
                               detector_name=self.name, contributing_signals=loud)  # fmt: skip


class Counting(BaseDetector):
    """Writes the fold."""

    failure_mode = "loss_spike"

    def init(self, context: Any = None) -> FoldState:
        state = FoldState(self.name, 1, {})
        state.memory["count"] = 0
        return state

    def update(self, state: Any, chunk: SignalSet) -> tuple[()]:
        state.memory["count"] += len(chunk)
        return ()

    def conclude(self, state: Any) -> DetectionResult:
        count = state.memory["count"]
        return DetectionResult(
            self.failure_mode, False, 0.0, {"count": count}, detector_name=self.name
        )


@pytest.mark.parametrize("detector", [Largest(), Counting()])
def test_batch_stream_and_restored_agree(detector: BaseDetector) -> None:
    whole = detector.detect(SIGNALS)
    state = detector.init()
    for at, one in enumerate(SIGNALS):
        detector.update(state, SignalSet.of([one]))
        if at == 2:
            state = detector.restore(state.to_bytes())
    assert detector.conclude(state) == whole
    assert detector.conclude(state) == whole  # asking changes nothing


def test_the_context_reaches_a_detector_that_writes_detect_alone() -> None:
    detector = Largest()
    state = detector.init({"limit": 100})
    detector.update(state, SignalSet.of(SIGNALS))
    assert not detector.conclude(state).detected
    assert detector.get_required_signals() == ("loss",)


def test_names_by_default_and_by_hand() -> None:
    class LRJumpDetector(Largest):
        pass

    class Named(Largest):
        name = "mine"

    assert (Largest.name, LRJumpDetector.name, Named.name) == (
        "largest",
        "lr_jump_detector",
        "mine",
    )


def test_half_a_fold_is_refused_when_the_class_is_made() -> None:
    with pytest.raises(RegistryError, match="Half writes only one of update and conclude"):

        class Half(BaseDetector):
            def conclude(self, state: Any) -> DetectionResult:
                raise NotImplementedError


def test_a_text_where_names_belong_is_refused() -> None:
    with pytest.raises(RegistryError, match=r"Wrong.required_signals is a tuple .* 'loss'"):

        class Wrong(Largest):
            required_signals = "loss"  # type: ignore[assignment]


def test_neither_detect_nor_the_fold_is_an_error_that_says_so() -> None:
    class Nothing(BaseDetector):
        failure_mode = "loss_spike"

    with pytest.raises(RegistryError, match="Nothing writes neither detect nor the fold"):
        Nothing().detect(SIGNALS)


def test_states_of_others_are_refused() -> None:
    with pytest.raises(TypeError, match="largest: FoldState is no state of this detector"):
        Largest().update(FoldState("x", 1, {}), SignalSet())
    with pytest.raises(ValueError, match="a state of counting"):
        Largest().restore(Counting().init().to_bytes())
    assert isinstance(Largest().init(), HistoryState)


def test_the_other_contracts_need_one_method_each() -> None:
    for base in (BaseIngestor, BaseSignalExtractor):
        with pytest.raises(TypeError, match="abstract"):
            base()  # type: ignore[abstract]

    class Mine(BaseIngestor):
        def ingest(self, source: Any) -> list[Signal]:
            return SIGNALS

    assert Mine().validate_schema(object())
    assert Mine().sniff(b"", "x") == 0.0
