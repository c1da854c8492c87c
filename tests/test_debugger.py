"""The debugger as users drive it: their own parts, failures of parts, routing, context."""

from __future__ import annotations

import contextlib
import json
import threading
from typing import Any

import numpy as np
import pytest

import ml_systems_debugger as mlsd
from ml_systems_debugger import (
    BaseDetector,
    BaseIngestor,
    BaseSignalExtractor,
    Configuration,
    ConfigurationError,
    DetectionResult,
    IngestionError,
    MLSystemsDebugger,
    Outcome,
    Signal,
    SignalSet,
    Status,
    diagnose,
)


def falling_loss(n: int = 400, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return 0.3 + 2.0 * np.exp(-np.arange(n) / (n / 5)) + rng.normal(0, 0.02, n)


class LoudLoss(BaseDetector):
    """A detector as a user writes it: `detect` alone."""

    failure_mode = "loss_spike"

    def get_required_signals(self) -> list[str]:
        return ["loss"]

    def detect(self, signals: Any, context: Any = None) -> DetectionResult:
        loud = [s for s in signals if s.name == "loss" and s.value > 100]
        return DetectionResult(
            self.failure_mode, bool(loud), 0.9 if loud else 0.0, detector_name=self.name,
            onset_step=loud[0].step if loud else None, contributing_signals=loud,
        )  # fmt: skip


class Broken(BaseDetector):
    failure_mode = "overfitting"

    def get_required_signals(self) -> list[str]:
        return ["loss"]

    def detect(self, signals: Any, context: Any = None) -> DetectionResult:
        raise ZeroDivisionError("the planted fault")


def test_a_healthy_run_is_healthy() -> None:
    report = diagnose({"loss": falling_loss()})
    assert report.status is Status.HEALTHY
    assert not report.failures


def test_nan_loss_is_found_at_its_step_without_being_flagged() -> None:
    loss = falling_loss()
    loss[317:] = np.nan
    report = diagnose({"loss": loss})
    assert report.status is Status.FAILURES
    assert report.failures[0].failure_mode == "nan_detected"
    assert report.failures[0].onset_step == 317
    assert report.attributions, "a finding has at least one possible cause"


def test_own_detector_takes_part_like_a_built_in() -> None:
    loss = falling_loss()
    loss[50] = 1e3
    report = MLSystemsDebugger(detectors=[]).add_detector(LoudLoss()).debug({"loss": loss})
    (found,) = report.failures
    assert (found.detector_name, found.onset_step) == ("loud_loss", 50)
    assert found.findings[0].onset_step == 50
    assert report.status is Status.FAILURES


def test_own_detector_that_finds_nothing_counts_as_a_check() -> None:
    report = MLSystemsDebugger(detectors=[LoudLoss()]).debug({"loss": falling_loss()})
    assert report.status is Status.HEALTHY


def test_a_detector_that_raises_is_reported_and_the_report_is_not_healthy() -> None:
    report = MLSystemsDebugger().add_detector(Broken()).debug({"loss": falling_loss()})
    (failed,) = report.failed_checks
    assert failed.outcome is Outcome.FAILED
    assert "the planted fault" in failed.reason
    assert "ZeroDivisionError" in failed.evidence["traceback"]
    assert report.status is Status.INCOMPLETE
    assert "planted fault" in report.to_json()


def test_a_detector_that_returns_nonsense_is_a_failed_check() -> None:
    class Wrong(LoudLoss):
        def detect(self, signals: Any, context: Any = None) -> Any:
            return {"detected": False}

    report = MLSystemsDebugger(detectors=[Wrong()]).debug({"loss": falling_loss()})
    assert report.status is Status.INCOMPLETE
    assert "not DetectionResult" in report.failed_checks[0].reason


def test_a_detector_without_its_signals_is_skipped_and_changes_nothing() -> None:
    class NeedsMemory(LoudLoss):
        def get_required_signals(self) -> list[str]:
            return ["memory_allocated"]

    report = MLSystemsDebugger().add_detector(NeedsMemory()).debug({"loss": falling_loss()})
    assert report.status is Status.HEALTHY
    reasons = {s.detector: s.reason for s in report.skipped}
    assert "memory_allocated" in reasons["needs_memory"]


def test_required_signals_are_asked_once_for_many_runs() -> None:
    asked = []

    class Counting(LoudLoss):
        def get_required_signals(self) -> list[str]:
            asked.append(1)
            return ["loss"]

    debugger = MLSystemsDebugger(detectors=[Counting()])
    for _ in range(3):
        debugger.debug([Signal("val_loss", 1.0, step=1)])
    routed = len(asked)
    debugger.debug([Signal("lr", 1.0, step=1)])
    assert len(asked) == routed


def test_a_detector_that_cannot_say_what_it_reads_is_a_failed_check() -> None:
    class Unsure(LoudLoss):
        def get_required_signals(self) -> list[str]:
            raise KeyError("the planted fault")

    report = MLSystemsDebugger(detectors=[Unsure()]).debug({"loss": falling_loss()})
    assert report.status is Status.INCOMPLETE
    assert "the planted fault" in report.failed_checks[0].reason


def test_detectors_run_beside_each_other() -> None:
    meeting = threading.Barrier(2, timeout=20)

    class Waits(LoudLoss):
        name = "waits"

        def detect(self, signals: Any, context: Any = None) -> DetectionResult:
            meeting.wait()  # breaks, and so fails the check, unless both run at once
            return super().detect(signals, context)

    report = MLSystemsDebugger(detectors=[Waits(), Waits()]).debug({"loss": falling_loss()})
    assert not report.failed_checks


def test_the_context_is_read_only() -> None:
    class Meddles(LoudLoss):
        def detect(self, signals: Any, context: Any = None) -> DetectionResult:
            context["x"] = 1
            return super().detect(signals, context)

    given = {"num_classes": 10}
    report = MLSystemsDebugger(detectors=[Meddles()]).debug({"loss": falling_loss()}, given)
    assert "read-only" in report.failed_checks[0].reason
    assert given == {"num_classes": 10}


def test_the_report_tells_what_began_when() -> None:
    norms = [1.0] * 60 + [400.0] * 20 + [float("nan")] * 20
    report = MLSystemsDebugger().debug({"grad_norm": norms})
    told = [(at["failure_mode"], at["step"]) for at in report.metadata["timeline"]]
    assert told == [("exploding_gradients", 60), ("nan_detected", 80)]
    assert MLSystemsDebugger().debug({"loss": [1.0]}).metadata["timeline"] == ()


def test_own_ingestor_is_asked_first() -> None:
    class FromTuple(BaseIngestor):
        def validate_schema(self, data: Any) -> bool:
            return isinstance(data, tuple)

        def ingest(self, source: Any) -> list[Signal]:
            return [Signal("loss", v, step=i) for i, v in enumerate(source)]

    loss = falling_loss()
    loss[100:] = np.inf
    report = MLSystemsDebugger().add_ingestor(FromTuple()).debug(tuple(loss))
    assert report.failures[0].onset_step == 100


def test_extractors_enrich_in_order_and_never_replace_raw_series() -> None:
    order = []

    class Doubles(BaseSignalExtractor):
        def __init__(self, name: str) -> None:
            self.label = name

        def extract(self, raw_data: SignalSet) -> list[Signal]:
            order.append((self.label, "doubled" in raw_data.names))
            return [
                Signal("doubled", 2 * s.value, step=s.step) for s in raw_data if s.name == "loss"
            ] + [Signal("loss", -1.0, step=0)]

    class Reads(LoudLoss):
        def get_required_signals(self) -> list[str]:
            return ["doubled"]

        def detect(self, signals: SignalSet, context: Any = None) -> DetectionResult:
            assert float(signals.select("loss")[0].values[0]) > 0
            return DetectionResult("loss_spike", True, 1.0, onset_step=3, detector_name=self.name)

    debugger = MLSystemsDebugger(detectors=[Reads()], extractors=[])
    debugger.add_signal_extractor(Doubles("a")).add_signal_extractor(Doubles("b"))
    report = debugger.debug({"loss": falling_loss()})
    assert order == [("a", False), ("b", True)]
    assert report.failures
    assert not report.failed_checks


def test_an_extractor_that_raises_makes_the_report_incomplete() -> None:
    class Raises(BaseSignalExtractor):
        def extract(self, raw_data: SignalSet) -> list[Signal]:
            raise RuntimeError("no such tensor")

    report = MLSystemsDebugger(extractors=[Raises()]).debug({"loss": falling_loss()})
    assert report.status is Status.INCOMPLETE
    assert any("no such tensor" in text for text in report.unread)


def test_wrong_parts_are_refused_with_a_reason() -> None:
    with pytest.raises(TypeError, match="pass an instance"):
        MLSystemsDebugger().add_detector(LoudLoss)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="no method ingest"):
        MLSystemsDebugger().add_ingestor(object())  # type: ignore[arg-type]


@pytest.mark.parametrize("data", [[], {}, {"loss": []}, SignalSet()])
def test_nothing_to_judge_is_not_healthy(data: Any) -> None:
    with contextlib.suppress(IngestionError):  # empty input may be refused, with words
        assert diagnose(data).status is Status.INSUFFICIENT


def test_formats_of_a_report() -> None:
    debugger = MLSystemsDebugger()
    report = debugger.debug({"loss": falling_loss()})
    assert debugger.generate_report(report) == str(report)
    assert json.loads(debugger.generate_report(report, "json")) == report.to_dict()
    assert debugger.generate_report(report, "markdown") == report.to_markdown()


def test_one_debugger_serves_many_threads() -> None:
    debugger = MLSystemsDebugger()
    found: dict[int, int | None] = {}

    def work(at: int) -> None:
        loss = falling_loss(seed=at)
        loss[100 + at :] = np.nan
        found[at] = debugger.debug({"loss": loss}).failures[0].onset_step

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {i: 100 + i for i in range(8)}


class TestConfiguration:
    def test_a_detector_can_be_left_out(self) -> None:
        name = mlsd.NaNDetectionDetector.name
        config = Configuration.of({"detectors": {name: {"enabled": False}}})
        assert name not in [d.name for d in config.detectors()]

    @pytest.mark.parametrize(
        ("data", "named"),
        [
            ({"detector": {}}, "'detector'"),
            ({"fail_on": "bad"}, "'bad'"),
            ({"detectors": {"nobody": {}}}, "'nobody'"),
            ({"detectors": {mlsd.LossPlateauDetector.name: {"no_such": 1}}}, "'no_such'"),
            ({"detectors": {mlsd.LossPlateauDetector.name: 3}}, "got 3"),
            ({"detectors": {mlsd.LossPlateauDetector.name: {"enabled": "yes"}}}, "'yes'"),
            ({"context": 5}, "got 5"),
        ],
    )
    def test_mistakes_are_named(self, data: dict[str, Any], named: str) -> None:
        with pytest.raises(ConfigurationError, match=named):
            Configuration.of(data)

    def test_a_file_that_is_no_toml_is_named(self, tmp_path: Any) -> None:
        path = tmp_path / "c.toml"
        path.write_text("[detectors\n")
        with pytest.raises(ConfigurationError, match=r"c\.toml: not valid TOML"):
            Configuration.of(path)
