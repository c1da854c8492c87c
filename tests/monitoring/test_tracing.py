"""A step replayed: the producer named, everything left as it was."""

from __future__ import annotations

import copy
import inspect
import json
import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml_systems_debugger import ConfigurationError, FailureMode, Severity
from ml_systems_debugger.monitoring import trace_step

torch = pytest.importorskip("torch", reason="torch is not installed")
nn, functional = torch.nn, torch.nn.functional
NAN, INF = float("nan"), float("inf")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm = nn.Linear(4, 8), nn.BatchNorm1d(8)
        self.drop, self.last = nn.Dropout(0.5), nn.Linear(8, 3)

    def forward(self, x: Any) -> Any:
        return self.last(self.drop(torch.relu(self.norm(self.first(x)))))


@pytest.fixture
def model() -> Any:
    return Net()


@pytest.fixture
def x() -> Any:
    return torch.randn(16, 4, generator=torch.Generator().manual_seed(1))


Y = torch.arange(16) % 3


def line_of(mark: str) -> str:
    """Return file:line of the one line of this file that has the mark in a comment."""
    here = inspect.getsourcefile(line_of)
    assert here is not None
    lines = Path(here).read_text(encoding="utf-8").splitlines()
    at = [n for n, text in enumerate(lines, 1) if text.endswith(f"# {mark}")]
    assert len(at) == 1
    return f"{here}:{at[0]}"


def test_a_healthy_step_has_no_producer(model: Any, x: Any) -> None:
    result = trace_step(model, lambda: functional.cross_entropy(model(x), Y))
    assert not result.found
    assert result.operations > 20
    assert result.to_finding() is None
    assert "finite" in str(result)


def test_log_of_zero_and_its_line(model: Any, x: Any) -> None:
    def closure() -> Any:
        p = torch.softmax(model(x) * 1000, 1)
        return -torch.log(p).mean()  # mark: log

    result = trace_step(model, closure, step=7)
    one = result.producer
    assert one is not None
    assert (one.kind, one.phase, one.op) == ("invalid_operation", "forward", "aten.log")
    assert one.source == line_of("mark: log")
    assert one.inputs[0].zeros > 0
    assert "logarithm of 0" in one.why
    assert [p.op for p in result.passed_on[:2]] == ["aten.mean", "aten.neg"]
    finding = result.to_finding()
    assert finding is not None
    assert finding.failure_mode is FailureMode.INF_DETECTED
    assert (finding.onset_step, finding.severity) == (7, Severity.CRITICAL)
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["producer"]["op"] == "aten.log"
    assert "passed on by forward aten.mean" in str(result)


def test_a_module_is_named(model: Any, x: Any) -> None:
    class Norm(nn.Module):
        def forward(self, h: Any) -> Any:
            return h / h.std(1, keepdim=True)  # mark: norm

    whole = nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.Linear(8, 8), Norm()))
    nn.init.zeros_(whole[1][0].weight)
    nn.init.zeros_(whole[1][0].bias)
    one = trace_step(whole, lambda: whole(x).sum()).producer
    assert one is not None
    assert (one.module, one.op, one.phase) == ("1.1", "aten.div", "forward")
    assert one.source == line_of("mark: norm")
    assert "0 / 0" in one.why


def test_nan_only_in_backward_has_the_forward_line(model: Any, x: Any) -> None:
    def closure() -> Any:
        h = model(x)
        return torch.sqrt((h - h.detach()).square().sum(1)).mean()  # mark: sqrt

    result = trace_step(model, closure)
    one = result.producer
    assert result.loss == 0.0
    assert one is not None
    assert (one.phase, one.node, one.op) == ("backward", "SqrtBackward0", "aten.div")
    assert one.source == line_of("mark: sqrt")
    assert "first.weight" in result.nonfinite_gradients


def test_the_branch_that_where_left_out_shows_in_backward(x: Any) -> None:
    w = nn.Parameter(torch.ones(4))
    holder = nn.ParameterList([w])

    def closure() -> Any:
        h = torch.relu(x) * w
        ratio = torch.sqrt(h) / h  # mark: where
        return torch.where(h > 0, ratio, torch.zeros_like(h)).sum()

    result = trace_step(holder, closure)
    assert result.loss is not None
    assert np.isfinite(result.loss)
    assert result.producer is not None
    assert result.producer.source == line_of("mark: where")


def test_a_bad_batch_is_named_and_so_is_the_place(model: Any, x: Any) -> None:
    x[3, 2] = NAN
    result = trace_step(model, lambda: functional.cross_entropy(model(x), Y))
    one = result.producer
    assert one is not None
    assert (one.phase, one.kind, one.name) == ("data", "non_finite_input", "x")
    assert one.first_index == (3, 2)
    assert result.others == ()
    assert result.passed_on[0].module == "first"


@pytest.mark.parametrize("how", ["partial", "mapping", "given", "part"])
def test_batches_have_the_names_of_the_closure(how: str, model: Any, x: Any) -> None:
    batch = {"image": x.clone(), "more": [x.clone()]}
    batch["image"][0, 0] = INF
    closure = {
        "partial": partial(lambda inputs: model(inputs).sum(), inputs=batch["image"]),
        "mapping": lambda: model(batch["image"]).sum(),
        "given": lambda: model(next(iter(batch.values()))).sum(),
        "part": lambda: model(batch["image"][:8]).sum(),
    }[how]
    given = {"pixels": batch["image"]} if how == "given" else None
    one = trace_step(model, closure, inputs=given).producer
    assert one is not None
    named = {"partial": "inputs", "given": "pixels"}.get(how, "batch['image']")
    assert (one.phase, one.name) == ("data", named)


def test_data_without_a_name_is_still_data(model: Any) -> None:
    def closure() -> Any:
        return model(torch.from_numpy(np.full((4, 4), np.nan, np.float32))).sum()

    one = trace_step(model, closure).producer
    assert one is not None
    assert one.phase == "data"


def test_a_parameter_that_was_bad_before(x: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(8, 1))
    ids = torch.tensor([[1, 2], [3, 7]])
    with torch.no_grad():
        model[0].weight[7, 2] = NAN
        model[0].weight[9, 0] = NAN
    result = trace_step(model, lambda: model(ids).sum())
    one = result.producer
    assert one is not None
    assert (one.kind, one.name) == ("non_finite_parameter", "0.weight")
    assert one.first_index == (7, 2)
    unread = trace_step(model, lambda: model(ids[:, :1].repeat(1, 2)[:1]).sum())
    assert unread.producer is None
    assert "parameter 0.weight is not finite at index [7, 2]" in str(unread)
    finding = result.to_finding()
    assert finding is not None
    assert finding.layer == "0.weight"


@pytest.mark.parametrize("key", ["exp_avg", "exp_avg_sq"])
def test_a_state_that_was_bad_before_the_parameter(key: str, model: Any, x: Any) -> None:
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x), Y)
        loss.backward()
        return loss

    closure()
    optimizer.step()
    optimizer.state[model.first.weight][key][2, 1] = NAN
    closure()
    quiet = trace_step(model, closure, optimizer).producer
    assert quiet is not None
    assert quiet.name == f"first.weight.{key}"
    optimizer.step()
    one = trace_step(model, closure, optimizer).producer
    assert one is not None
    assert (one.phase, one.name) == ("optimizer_state", f"first.weight.{key}")
    assert one.first_index == (2, 1)


def test_a_bad_gradient_of_before_blames_no_state(model: Any, x: Any) -> None:
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    (functional.cross_entropy(model(x), Y) * NAN).backward()
    optimizer.step()
    result = trace_step(model, lambda: functional.cross_entropy(model(x), Y), optimizer)
    assert result.producer is not None
    assert result.producer.phase == "parameter"
    assert any("an earlier gradient" in note for note in result.notes)


def test_overflow_in_half_precision(model: Any, x: Any) -> None:
    def closure() -> Any:
        with torch.autocast("cpu", dtype=torch.float16):
            return (model(x) * 3e4).square().mean()  # mark: half

    one = trace_step(model, closure).producer
    assert one is not None
    assert (one.kind, one.phase) == ("overflow", "forward")
    assert one.source == line_of("mark: half")
    assert one.output is not None
    assert one.output.dtype == "float16"
    assert "65504" in one.why


def test_a_loss_scale_that_is_too_large_is_no_fault(model: Any, x: Any) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)

    def closure() -> Any:
        with torch.autocast("cpu", dtype=torch.float16):
            loss = functional.cross_entropy(model(x), Y)
        scaler.scale(loss).backward()
        return loss

    result = trace_step(model, closure)
    assert result.producer is not None
    assert (result.producer.kind, result.producer.phase) == ("overflow", "backward")
    assert result.producer.by_design
    assert result.loss_scale == 2.0**40
    finding = result.to_finding()
    assert finding is not None
    assert finding.severity is Severity.LOW


def attention(q: Any, mask: Any, fill: bool) -> Any:
    scores = q @ q.transpose(1, 2)
    scores = scores.masked_fill(mask, -INF) if fill else scores + torch.where(mask, -INF, 0.0)
    return torch.softmax(scores, -1) @ q  # mark: masked


@pytest.mark.parametrize("fill", [False, True])
def test_masks_are_no_producers(fill: bool, model: Any, x: Any) -> None:
    holder = nn.ParameterList([torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))])
    q = holder[0]
    ones = torch.ones(3, 3, dtype=torch.bool)
    healthy = trace_step(holder, lambda: attention(q, ones.triu(1), fill).mean())
    assert not healthy.found
    one = trace_step(holder, lambda: attention(q, ones.triu(0), fill).mean()).producer
    assert one is not None
    assert (one.kind, one.op) == ("fully_masked", "aten._softmax")
    assert one.source == line_of("mark: masked")

    def closure() -> Any:  # something else is wrong: the mask is not to blame
        return attention(torch.log(torch.relu(q)), ones.triu(1), fill).mean()  # mark: not mask

    other = trace_step(holder, closure).producer
    assert other is not None
    assert (other.op, other.source) == ("aten.log", line_of("mark: not mask"))


def test_a_mask_that_reaches_the_loss_is_told() -> None:
    holder = nn.ParameterList([torch.zeros(1, 3)])

    def closure() -> Any:
        logits = holder[0].masked_fill(torch.tensor([[True, False, False]]), -INF)
        return functional.cross_entropy(logits, torch.tensor([0]))

    one = trace_step(holder, closure).producer
    assert one is not None
    assert (one.kind, one.op) == ("constant", "aten.masked_fill")


def test_in_place_operations_and_parts_of_tensors(x: Any) -> None:
    model = nn.Linear(4, 4)

    def closure() -> Any:
        held = torch.zeros(32, 4)
        held[:16] = model(x)
        held[16:20] = torch.exp(model(x)[:4].detach() * 1e4)
        held[16:20].clamp_(max=1.0)  # which ends it
        held[20:24] = model(x)[:4].square().neg()
        held[20:24].sqrt_()  # mark: in place
        return held.sum()

    result = trace_step(model, closure)
    assert result.producer is not None
    assert result.producer.op == "aten.sqrt_"
    assert result.producer.source == line_of("mark: in place")
    assert result.producer.inputs[0].min < 0  # as it was before


def test_a_value_that_goes_through_python(model: Any, x: Any) -> None:
    def closure() -> Any:
        scale = float(torch.log(torch.zeros(())))  # mark: item
        return (model(x) * scale).mean()

    one = trace_step(model, closure).producer
    assert one is not None
    assert one.source == line_of("mark: item")


def test_checkpointed_modules(model: Any, x: Any) -> None:
    from torch.utils.checkpoint import checkpoint

    class Root(nn.Module):
        def forward(self, h: Any) -> Any:
            return torch.sqrt(h - h.detach())  # mark: checkpoint

    whole = nn.Sequential(nn.Linear(4, 4), Root())
    result = trace_step(whole, lambda: checkpoint(whole, x, use_reentrant=False).sum())
    one = result.producer
    assert one is not None
    assert (one.phase, one.module, one.source) == ("backward", "1", line_of("mark: checkpoint"))


class Custom(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Any) -> Any:
        return h.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0] / torch.zeros(())  # mark: custom


def test_a_backward_of_ones_own_has_its_own_line(model: Any, x: Any) -> None:
    one = trace_step(model, lambda: Custom.apply(model(x)).sum()).producer
    assert one is not None
    assert (one.phase, one.node, one.source) == (
        "backward",
        "CustomBackward",
        line_of("mark: custom"),
    )


def test_memory_that_was_never_written(monkeypatch: pytest.MonkeyPatch) -> None:
    # With these two switches torch fills memory that it hands out as it is with NaN.
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        one = trace_step(nn.Linear(2, 2), lambda: torch.empty(2, 2).sum()).producer
    finally:
        torch.use_deterministic_algorithms(before)
    assert one is not None
    assert (one.kind, one.phase) == ("uninitialised_memory", "forward")


def test_values_written_past_torch_count_as_data() -> None:
    model = nn.Linear(2, 2)

    def closure() -> Any:
        held = torch.zeros(2, 2)
        np.asarray(held)[:] = np.nan
        return model(held).sum()

    one = trace_step(model, closure).producer
    assert one is not None
    assert one.phase == "data"


def everything(model: Any, optimizer: Any) -> Any:
    state = [(k, v) for held in optimizer.state.values() for k, v in held.items()]
    return copy.deepcopy(
        {
            "model": dict(model.state_dict()), "state": state,
            "grads": [p.grad for p in model.parameters()],
            "rates": [g["lr"] for g in optimizer.param_groups],
            "training": [m.training for m in model.modules()],
            "random": (torch.rand(3), random.random(), np.random.rand()),  # noqa: NPY002
        }
    )  # fmt: skip


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return bool(torch.equal(a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(equal(p, q) for p, q in zip(a, b, strict=True))
    return bool(a == b)


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_changed(foreach: bool, fails: bool, model: Any, x: Any) -> None:
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, foreach=foreach)

    def whole() -> Any:
        optimizer.zero_grad(set_to_none=False)
        loss = functional.cross_entropy(model(x), Y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    def closure() -> Any:
        optimizer.param_groups[0]["lr"] *= 2
        model.eval()
        model.train()
        model.drop.eval()
        torch.rand(2)
        random.random()
        loss = whole()
        model.norm.running_mean = torch.zeros(8)
        model.first.weight.data = torch.zeros(8, 4)
        if fails:
            raise RuntimeError("the user's own")
        return loss

    whole()
    seeds = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    before = everything(model, optimizer)
    kept = [p.grad for p in model.parameters()], model.norm.running_mean, model.first.weight.data
    torch.set_rng_state(seeds[0])
    random.setstate(seeds[1])
    np.random.set_state(seeds[2])  # noqa: NPY002
    if fails:
        with pytest.raises(RuntimeError, match="the user's own"):
            trace_step(model, closure, optimizer)
    else:
        trace_step(model, closure, optimizer)
    assert equal(everything(model, optimizer), before)
    assert all(p.grad is g for p, g in zip(model.parameters(), kept[0], strict=True))
    assert model.norm.running_mean is kept[1]
    assert model.first.weight.data_ptr() == kept[2].data_ptr()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_the_replay_drops_what_the_step_dropped(x: Any) -> None:
    from ml_systems_debugger.monitoring.tracing import RandomState

    model = Net()

    def closure() -> Any:
        return functional.cross_entropy(model(x), Y)

    state = RandomState()
    loss = float(closure().detach())
    assert trace_step(model, closure).loss != loss
    assert trace_step(model, closure, random_state=state).loss == loss


def test_what_closures_return(model: Any, x: Any) -> None:
    def given(loss: Any) -> Any:
        return lambda: {"loss": loss(model(x).sum())}

    assert trace_step(model, given(lambda v: v)).loss is not None
    assert trace_step(model, lambda: None).loss is None
    assert trace_step(model, lambda: 1.5).loss == 1.5
    unseen = trace_step(model, lambda: NAN)
    assert unseen.producer is not None
    assert "outside of torch" in unseen.producer.why
    with pytest.raises(TypeError, match=r"shape \(16, 3\)"):
        trace_step(model, lambda: model(x))
    with pytest.raises(ConfigurationError, match="closure"):
        trace_step(model, 3.0)  # type: ignore[arg-type]


def test_normalisation_statistics_that_were_bad_are_not_read_in_training(
    model: Any, x: Any
) -> None:
    with torch.no_grad():
        model.norm.running_mean[1] = NAN

    def closure() -> Any:
        return torch.log(torch.relu(model(x))).sum()

    one = trace_step(model, closure).producer
    assert one is not None
    assert one.op == "aten.log"
    model.eval()
    other = trace_step(model, closure).producer
    assert other is not None
    assert (other.kind, other.name) == ("non_finite_buffer", "norm.running_mean")
