"""Loss scales: norms are those of the gradients themselves, steps left out are no fault."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from ml_systems_debugger import Monitor  # noqa: E402
from ml_systems_debugger.ingestion import open_source  # noqa: E402

STEPS = 60
BAD = 20


def train(
    folder: Path, fused: bool = False, unscale: bool = False, clip: bool = False,
    scaled: bool = True, **options: Any,
) -> tuple[Monitor, dict[str, Any], list[bool], list[Any]]:  # fmt: skip
    """Train with a scaler, or without; at step BAD the scaled gradient overflows."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16, enabled=scaled)
    path = folder / f"{fused}{unscale}{clip}{scaled}.ring"
    monitor = Monitor(model, optimizer, action="none", recorder=str(path), **options)
    made, found = [], []
    for step in range(STEPS):
        x = torch.randn(16, 4)
        optimizer.zero_grad()
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        back = scaler.scale(loss)
        if scaled and step == BAD:
            back = back * 1e38
        back.backward()
        if scaled and (unscale or clip):
            scaler.unscale_(optimizer)
        if clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        before = model[0].weight.clone()
        scaler.step(optimizer)
        made.append(not torch.equal(before, model[0].weight))
        extra = {"loss_scale": scaler.get_scale()} if scaled else {}
        scaler.update()
        found += monitor.step(loss=loss.detach(), **extra)
    monitor.close()
    found += [f for f in monitor.findings if f not in found]
    series = {str(one.key): one for one in open_source(path).series}
    return monitor, series, made, found


WAYS = [(fused, unscale, clip) for fused in (False, True)
        for unscale, clip in ((False, False), (True, False), (True, True))]  # fmt: skip


@pytest.mark.parametrize(("fused", "unscale", "clip"), WAYS)
def test_norms_are_unscaled_and_steps_left_out_are_no_fault(
    fused: bool, unscale: bool, clip: bool, tmp_path: Path
) -> None:
    _, plain, _, _ = train(tmp_path, clip=clip, scaled=False)
    _, series, made, found = train(tmp_path, fused, unscale, clip)
    assert [step for step, one in enumerate(made) if not one] == [BAD]
    norms = series["grad_norm"]
    assert norms.steps.tolist() == [step for step in range(STEPS) if step != BAD]
    want = plain["grad_norm"].values[:BAD].tolist()
    assert norms.values[:BAD].tolist() == pytest.approx(want, rel=1e-4)
    assert norms.values.max() < 100
    assert series["loss"].steps.tolist() == list(range(STEPS)), "no step is shifted"
    if fused or clip:  # there the monitor sees the step that was left out
        skipped = series["skipped_step"]
        assert dict(zip(skipped.steps.tolist(), skipped.values.tolist(), strict=True))[BAD] == 1.0
        assert skipped.values.sum() == 1
    assert [str(f) for f in found] == []


def test_a_step_left_out_on_request_is_told(tmp_path: Path) -> None:
    """With no scaler that is the monitor's own doing, and the finding stays."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    path = tmp_path / "run.ring"
    monitor = Monitor(model, optimizer, action="none", skip_nonfinite=True, recorder=str(path))
    found = []
    for step in range(6):
        optimizer.zero_grad()
        model(torch.full((2, 4), float("inf") if step == 3 else 1.0)).sum().backward()
        optimizer.step()
        found += monitor.step()
    assert {f.onset_step for f in found} == {3}
    assert all(p.isfinite().all() for p in model.parameters())
    series = {str(one.key): one.values.tolist() for one in open_source(path).series}
    assert series["skipped_step"] == [0, 0, 0, 1, 0, 0]


def test_skipping_with_a_scaler(tmp_path: Path) -> None:
    for fused in (False, True):
        _, series, made, found = train(tmp_path, fused, skip_nonfinite=True)
        assert [step for step, one in enumerate(made) if not one] == [BAD]
        assert series["loss"].steps.tolist() == list(range(STEPS))
        assert found == []


def test_a_scale_that_collapses_is_a_fault(tmp_path: Path) -> None:
    """Steps that are all left out are told, although none of them is judged by its gradients."""
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    monitor = Monitor(model, optimizer, action="none")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in range(120):
            optimizer.zero_grad()
            loss = model(torch.randn(8, 4)).square().mean()
            bad = float("inf") if step >= 60 else 1.0
            (scaler.scale(loss) * bad).backward()
            scaler.step(optimizer)
            scaler.update()
            monitor.step(loss=loss.detach(), loss_scale=scaler.get_scale())
    monitor.close()
    assert "mixed_precision_instability" in {str(f.failure_mode) for f in monitor.findings}
