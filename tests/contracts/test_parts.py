"""What every ingestor, extractor and reporter must keep."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from histories import healthy

from ml_systems_debugger import (
    BaseIngestor,
    BaseReporter,
    BaseSignalExtractor,
    DebugReport,
    MLSystemsDebuggerError,
    Series,
    SeriesKey,
    SeriesKind,
    SignalSet,
    diagnose,
)
from ml_systems_debugger.core import extractors, ingestors, reporters

INGESTORS, EXTRACTORS, REPORTERS = (dict(r.items()) for r in (ingestors, extractors, reporters))
each_ingestor = pytest.mark.parametrize("cls", INGESTORS.values(), ids=list(INGESTORS))
each_extractor = pytest.mark.parametrize("cls", EXTRACTORS.values(), ids=list(EXTRACTORS))
each_reporter = pytest.mark.parametrize("cls", REPORTERS.values(), ids=list(REPORTERS))
every = pytest.mark.parametrize(
    "cls", [*INGESTORS.values(), *EXTRACTORS.values(), *REPORTERS.values()]
)


@every
def test_it_is_constructed_without_arguments_and_documented(cls: type[Any]) -> None:
    assert cls().name
    assert len((inspect.getdoc(cls) or "").split()) >= 5


def ingested(ingestor: BaseIngestor, thing: Any) -> Any:
    # One that nearly understands a thing may say what is wrong in the check already.
    assert isinstance(ingestor.validate_schema(thing), bool)
    return ingestor.ingest(thing)


@each_ingestor
@pytest.mark.parametrize("thing", [None, 3.5, object(), b"", {"a": object()}])
def test_what_an_ingestor_does_not_read_is_an_error_of_ours(
    cls: type[BaseIngestor], thing: Any
) -> None:
    with pytest.raises((MLSystemsDebuggerError, TypeError)):
        ingested(cls(), thing)


@each_ingestor
@pytest.mark.parametrize("head", [b"", b"\0" * 64, b"\xff\xfe\x00x", b"{", b"step,loss\n0,1\n"])
def test_sniffing_is_a_share_and_never_raises(cls: type[BaseIngestor], head: bytes) -> None:
    assert 0.0 <= cls().sniff(head, "run.bin") <= 1.0


def with_arrays() -> SignalSet:
    arrays = np.empty(3, object)
    arrays[:] = [np.arange(4.0) * i for i in range(3)]
    more = [
        Series(SeriesKey(name, layer="a", kind=SeriesKind.ARRAY), np.array([0, 5, 9]), arrays)
        for name in ("gradient", "training_distribution", "serving_distribution", "other")
    ]
    run = healthy(0, 60)
    return SignalSet([*(one for one in run.series if one.kind is not SeriesKind.ARRAY), *more])


@each_extractor
def test_what_is_derived_stands_at_the_steps_of_the_raw(cls: type[BaseSignalExtractor]) -> None:
    run = with_arrays()
    before = [np.array(a) for one in run.select(kind=SeriesKind.ARRAY) for a in one.values]
    found = SignalSet.of(cls().extract(run))
    assert found.series
    for one in found.series:
        assert set(one.steps.tolist()) <= {0, 5, 9}
        assert one.key not in run.keys or one.key.name == "grad_norm", "raw is not replaced"
    after = [np.array(a) for one in run.select(kind=SeriesKind.ARRAY) for a in one.values]
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)
    again = SignalSet.of(cls().extract(run))
    assert [(o.key, o.values.tolist()) for o in again.series] == [
        (o.key, o.values.tolist()) for o in found.series
    ]


@each_extractor
def test_nothing_is_derived_where_nothing_is_raw(cls: type[BaseSignalExtractor]) -> None:
    scalars = SignalSet(o for o in healthy(0, 60).series if o.kind is not SeriesKind.ARRAY)
    assert not len(SignalSet.of(cls().extract(scalars)))
    assert not len(SignalSet.of(cls().extract(SignalSet())))


@pytest.fixture(scope="module", params=["failed", "healthy", "empty"])
def report(request: pytest.FixtureRequest) -> DebugReport:
    runs: dict[str, Any] = {
        "failed": {"loss": [1.0] * 30 + [float("nan")] * 5},
        "healthy": healthy(0),
        "empty": SignalSet(),
    }
    return diagnose(runs[request.param])


@each_reporter
def test_every_report_is_rendered_and_says_its_status(
    cls: type[BaseReporter], report: DebugReport
) -> None:
    text = cls().render(report)
    assert text == cls().render(report)
    assert str(report.status).replace("_", " ") in text.lower().replace("_", " ")
    if report.failures:
        assert "30" in text
