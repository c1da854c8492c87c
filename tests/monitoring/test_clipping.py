"""Gradients before they are clipped are told from what clipping left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from ml_systems_debugger import Monitor  # noqa: E402
from ml_systems_debugger.ingestion import open_source  # noqa: E402
from ml_systems_debugger.monitoring import _clipping  # noqa: E402

clip_by_name = torch.nn.utils.clip_grad_norm_  # as `from torch.nn.utils import` gives it


def run(
    folder: Path, clip: Any, steps: int = 40, told: bool = False, grow: int | None = None,
    **options: Any,
) -> tuple[Monitor, dict[str, list[float]], list[float]]:  # fmt: skip
    """Train; return the monitor, what was recorded, and what clipping itself said."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    path = folder / "run.ring"
    monitor = Monitor(model, optimizer, action="none", recorder=str(path), **options)
    norms = []
    for step in range(steps):
        x = torch.randn(16, 4)
        optimizer.zero_grad()
        loss = 50 * (model(x) - x.sum(1, keepdim=True)).square().mean()
        if grow is not None and step >= grow:
            loss = loss * 4.0 ** (step - grow + 1)
        loss.backward()
        norms.append(float(clip(model)))
        optimizer.step()
        monitor.step(loss=loss.detach(), **({"grad_norm": norms[-1]} if told else {}))
    monitor.close()
    series = {str(one.key): one.values.tolist() for one in open_source(path).series}
    return monitor, series, norms


CLIPS = {
    "by attribute": lambda m: torch.nn.utils.clip_grad_norm_(m.parameters(), 1.0),
    "by name": lambda m: clip_by_name(list(m.parameters()), max_norm=1.0),
    "in two calls": lambda m: _in_two_calls(m),
    "one tensor": lambda m: torch.nn.utils.clip_grad_norm_(next(m.parameters()), 1.0),
}


def _in_two_calls(model: Any) -> float:
    """Clip as loops do that take the norm of their own."""
    parameters = list(model.parameters())
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
    torch.nn.utils.clip_grads_with_norm_(parameters, 1.0, norm)
    return float(norm)


@pytest.mark.parametrize("way", ["by attribute", "by name", "in two calls"])
def test_the_norm_is_that_before_clipping(way: str, tmp_path: Path) -> None:
    _, series, norms = run(tmp_path, CLIPS[way])
    assert min(norms) > 1.5, "every step is clipped"
    assert series["grad_norm"] == pytest.approx(norms, rel=1e-5)
    assert series["clipped_grad_norm"] == pytest.approx([1.0] * 40, rel=1e-5)
    layers = [values for name, values in series.items() if name.startswith("grad_norm/")]
    squares = [sum(v * v for v in step) for step in zip(*layers, strict=True)]
    assert [one**0.5 for one in squares] == pytest.approx(norms, rel=1e-5)


def test_a_part_that_is_clipped(tmp_path: Path) -> None:
    _, series, norms = run(tmp_path, CLIPS["one tensor"])
    first = next(v for k, v in series.items() if k.startswith("grad_norm/0.weight"))
    assert first == pytest.approx(norms, rel=1e-5)
    left = [
        (whole**2 - one**2 + min(one, 1.0) ** 2) ** 0.5
        for whole, one in zip(series["grad_norm"], first, strict=True)
    ]
    assert series["clipped_grad_norm"] == pytest.approx(left, rel=1e-5)


def test_without_clipping_nothing_is_said_of_it(tmp_path: Path) -> None:
    _, series, _ = run(tmp_path, lambda _: 0.0)
    assert "clipped_grad_norm" not in series


def test_a_norm_that_the_loop_tells_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clipping that torch does not do, as that of a sharded model, is told with `grad_norm`."""

    def clip(model: Any) -> float:
        norm = float(sum(p.grad.square().sum() for p in model.parameters())) ** 0.5
        for p in model.parameters():
            p.grad.mul_(min(1.0, 1.0 / norm))
        return norm

    _, series, norms = run(tmp_path, clip, told=True)
    assert series["grad_norm"] == pytest.approx(norms)
    assert series["clipped_grad_norm"] == pytest.approx([1.0] * 40, rel=1e-5)


def test_told_and_seen_is_one_number(tmp_path: Path) -> None:
    _, series, norms = run(tmp_path, CLIPS["by attribute"], told=True)
    assert series["grad_norm"] == pytest.approx(norms, rel=1e-5)
    assert series["clipped_grad_norm"] == pytest.approx([1.0] * 40, rel=1e-5)


def test_an_explosion_is_found_although_clipping_hides_it(tmp_path: Path) -> None:
    monitor, series, _ = run(tmp_path, CLIPS["by attribute"], 240, grow=230)
    assert max(series["clipped_grad_norm"]) < 1.01
    assert "exploding_gradients" in {str(f.failure_mode) for f in monitor.findings}


def test_the_layer_with_the_nan_is_named_before_clipping_spreads_it() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    monitor = Monitor(model, optimizer, action="none")
    found = []
    for step in range(4):
        optimizer.zero_grad()
        model(torch.ones(2, 4)).sum().backward()
        if step == 3:
            model[1].bias.grad.fill_(float("nan"))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        assert step < 3 or model[0].weight.grad.isnan().all(), "clipping spreads it"
        optimizer.step()
        found = monitor.step()
    layers = {f.layer for f in found if f.layer is not None}
    assert layers == {"1.bias"}


def test_skipping_works_with_clipping() -> None:
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    monitor = Monitor(model, optimizer, action="none", skip_nonfinite=True)
    model(torch.full((2, 4), float("inf"))).sum().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    monitor.step()
    assert all(p.isfinite().all() for p in model.parameters())


def test_torch_is_as_it_was_behind_the_last_monitor() -> None:
    for left in tuple(_clipping._listeners):  # of monitors that other tests did not close
        _clipping.unlisten(left)
    inner = torch.nn.utils.clip_grad
    before = inner._clip_grads_with_norm_, torch.nn.utils.clip_grads_with_norm_
    made = []
    for _ in range(2):
        model = torch.nn.Linear(2, 1)
        made.append(Monitor(model, torch.optim.SGD(model.parameters(), 1e-3)))
    assert inner._clip_grads_with_norm_ is not before[0]
    made[0].close()
    assert inner._clip_grads_with_norm_ is not before[0]
    made[1].close()
    assert (inner._clip_grads_with_norm_, torch.nn.utils.clip_grads_with_norm_) == before
    assert not _clipping._replaced


def test_another_model_is_no_matter() -> None:
    mine, other = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(mine.parameters(), 1e-3)
    monitor = Monitor(mine, optimizer, action="none", strict=True)
    other(torch.ones(1, 2)).sum().backward()
    torch.nn.utils.clip_grad_norm_(other.parameters(), 1.0)
    assert monitor._model is not None
    assert not monitor._model._waits
    monitor.close()
