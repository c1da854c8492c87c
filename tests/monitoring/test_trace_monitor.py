"""The monitor traces the step that was not finite, as it was when it began."""

from __future__ import annotations

from typing import Any

import pytest

from ml_systems_debugger import ConfigurationError, Severity
from ml_systems_debugger.monitoring import FaultFound, Monitor, MonitorWarning

torch = pytest.importorskip("torch", reason="torch is not installed")
nn = torch.nn


class Ratio(nn.Module):
    """Divides by a part of its input: bad where that is zero."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lift, self.drop, self.out = nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 1)

    def forward(self, x: Any) -> Any:
        return self.out(self.drop(torch.relu(self.lift(x / x[:, :1]))))


def batches(n: int, bad: int, fault: str) -> Any:
    generator = torch.Generator().manual_seed(1)
    for step in range(n):
        x = torch.rand(16, 4, generator=generator) + 0.5
        y = x.sum(1, keepdim=True)
        if step == bad and fault == "zero":
            x[5] = 0.0
        elif step == bad and fault == "batch":
            x[5, 2] = float("nan")
        elif step == bad and fault == "loss":
            y[3] = -1.0
        yield step, x, y


def loss_of(out: Any, y: Any) -> Any:
    return (out - torch.sqrt(y)).square().mean()


def train(fault: str, closed: bool, monitor: Any = None, **options: Any) -> tuple[Monitor, Any]:
    model = Ratio()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    monitor = Monitor(model, optimizer, **{"action": "none", "trace": True, **options})
    found = []
    for step, x, y in batches(12, 6, fault):
        optimizer.zero_grad()
        loss = loss_of(model(x), y)
        loss.backward()
        optimizer.step()
        closure = (lambda x=x, y=y: loss_of(model(x), y)) if closed else None
        found += [(step, one) for one in monitor.step(loss=loss, closure=closure)]
    return monitor, [(step, one) for step, one in found if "producer_kind" in one.evidence]


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("fault", ["zero", "batch", "loss"])
def test_the_producer_is_told_at_its_own_step(fault: str, closed: bool) -> None:
    monitor, found = train(fault, closed)
    step, one = found[0]
    assert (step, one.onset_step, one.severity) == (6, 6, Severity.CRITICAL)
    assert len(found) == 1
    producer = monitor._tracer.results[0].producer  # type: ignore[union-attr]
    assert producer is not None
    if fault == "zero":
        assert (producer.op, producer.module, producer.phase) == ("aten.div", "Ratio", "forward")
    elif fault == "batch":
        assert producer.phase == "data"
        assert producer.name == ("x" if closed else "input 0")
        assert producer.first_index == (5, 2)
    elif closed:
        assert (producer.op, producer.module) == ("aten.sqrt", None)
    else:
        assert (producer.op, producer.module) == ("the loss", None)
    report = monitor.report()
    assert any("producer_kind" in f.evidence for f in report.failures)
    assert report.attributions


def test_the_replay_has_the_parameters_and_the_dropout_of_the_step() -> None:
    monitor, _ = train("loss", True)
    result = monitor._tracer.results[0]  # type: ignore[union-attr]
    assert not any("parameter" in note for note in result.notes)  # though Adam has spoilt them
    assert result.producer is not None
    assert result.producer.phase == "forward"


def test_a_closure_alone_is_enough_from_its_second_step_on() -> None:
    _, found = train("zero", True, trace=False)
    assert found[0][0] == 6


def test_a_step_left_out_is_traced_each_time() -> None:
    monitor, found = train("zero", True, skip_nonfinite=True)
    assert [step for step, _ in found] == [6]
    assert monitor._tracer.results[0].producer.op == "aten.div"  # type: ignore[union-attr]


def test_it_is_told_before_the_run_is_ended() -> None:
    with pytest.raises(FaultFound, match=r"aten\.div"):
        train("zero", True, action="raise")


def test_a_trace_by_hand() -> None:
    model = Ratio()
    monitor = Monitor(model, torch.optim.SGD(model.parameters(), 0.1), action="none")
    x = torch.zeros(2, 4)
    result = monitor.trace(lambda: model(x).sum())
    assert result.producer is not None
    assert result.producer.op == "aten.div"
    assert len(monitor.findings) == 1
    monitor.close()
    assert not model._forward_pre_hooks
    assert not model._forward_hooks
    with pytest.raises(ConfigurationError, match="a torch model"):
        Monitor(action="none").trace(lambda: 0.0)


def test_a_trace_that_fails_ends_nothing() -> None:
    model = Ratio()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor = Monitor(model, optimizer, action="none", trace=True)

    def closure() -> Any:
        raise KeyError("the user's own")

    with pytest.warns(MonitorWarning, match="tracing a step failed.*the user's own"):
        found = monitor.step(loss=float("nan"), closure=closure)
    assert found
    assert [d.reason for d in monitor.report().failed_checks] == ['KeyError: "the user\'s own"']
