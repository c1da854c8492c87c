"""A training whose monitor raises at a chosen place, from a chosen call on.

    python tests/monitoring/planted_errors.py --calls 1 7    # every place, one after the other

A place is any function of the monitor and of the detectors that another of their functions
calls. Left out are the few that catch what the others raise, and what needs a device or a job.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import pkgutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ml_systems_debugger import Monitor, monitoring
from ml_systems_debugger.core import DebugReport, Outcome, detectors
from ml_systems_debugger.monitoring import MonitorWarning

STEPS, BAD = 48, 40
CARRIED = range(20, 24)  # steps whose gradients are not cleared before
_GUARDS = ("Monitor", "Troubles", "Actions", "Probes", "Judges", "_guarded", "clipping")
"""What catches the errors of all the others, and is called by the loop or by torch."""
_ELSEWHERE = ("replica", "device", "_late", "session", "_clipping")

Place = tuple[Any, str]


class PlantedError(RuntimeError):
    """Raised on purpose."""


@dataclass
class Run:
    """What is left of a training."""

    weights: list[torch.Tensor]
    report: DebugReport | None = None
    told: list[str] = field(default_factory=list)
    raised: int = 0

    @property
    def failed(self) -> list[str]:
        """Checks that did not run, by the report."""
        assert self.report is not None
        return [r.detector_name for r in self.report.detections if r.outcome is Outcome.FAILED]


def places() -> list[Place]:
    """Return every place, in order of their names: the owner, and the name in it."""
    found: list[Place] = []
    for info in pkgutil.iter_modules(monitoring.__path__, f"{monitoring.__name__}."):
        if any(name in info.name for name in _ELSEWHERE):
            continue
        module = importlib.import_module(info.name)
        for name, one in vars(module).items():
            if getattr(one, "__module__", "") != module.__name__ or name in _GUARDS:
                continue
            if inspect.isfunction(one):
                found.append((module, name))
            elif inspect.isclass(one):
                found += [(one, method) for method in _methods(one)]
    for one in set(detectors.items().values()):
        found += [(one, name) for name in ("update", "conclude", "reads") if name in vars(one)]
    return sorted(found, key=shown)


def _methods(cls: type) -> list[str]:
    return [
        name for name, one in vars(cls).items()
        if inspect.isfunction(one) and not name.startswith("__") and name not in _GUARDS
    ]  # fmt: skip


def shown(place: Place) -> str:
    """Return the name of a place."""
    owner, name = place
    return f"{owner.__name__}.{name}"


@contextmanager
def planted(place: Place, call: int, run: Run, armed: list[bool]) -> Iterator[None]:
    """Let a place raise from its `call`-th call on, once `armed` is told so."""
    owner, name = place
    original, calls = vars(owner)[name], 0

    def raising(*args: Any, **named: Any) -> Any:
        nonlocal calls
        by = sys._getframe(1).f_globals.get("__name__", "")
        if armed and by.startswith("ml_systems_debugger"):
            calls += 1
            if calls >= call:
                run.raised += 1
                raise PlantedError("planted")
        return original(*args, **named)

    setattr(owner, name, raising)
    try:
        yield
    finally:
        setattr(owner, name, original)


def train(place: Place | None = None, call: int = 1) -> Run:
    """Train a small model; with a `place`, watched by a monitor in which that raises."""
    run = Run([])
    if place is None:
        run.weights = _trained(None, run, [])
        return run
    armed: list[bool] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        warnings.catch_warnings(record=True) as told,
        planted(place, call, run, armed),
    ):
        warnings.simplefilter("always")
        run.weights = _trained(str(Path(folder) / "run.ring"), run, armed)
    run.told = [str(one.message) for one in told if issubclass(one.category, MonitorWarning)]
    return run


def _trained(ring: str | None, run: Run, armed: list[bool]) -> list[torch.Tensor]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    monitor = None
    if ring is not None:
        monitor = Monitor(
            model, optimizer, action="none", recorder=ring, trace=True, activations=True,
            overhead=0.9, on_finding=lambda _: None, save=lambda: None,
        )  # fmt: skip
    armed.append(True)
    data = torch.Generator().manual_seed(1)
    for step in range(STEPS):
        x = torch.randn(8, 4, generator=data)

        def closure(x: torch.Tensor = x) -> torch.Tensor:
            return (model(x) - x.sum(1, keepdim=True)).square().mean()

        if step not in CARRIED:
            optimizer.zero_grad()
        loss = closure() * (float("nan") if step == BAD else 1.0)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if step == BAD:
            optimizer.zero_grad()
        optimizer.step()
        if monitor is not None:
            monitor.step(loss=loss, closure=closure)
            if step == STEPS // 2:
                monitor.report()
                monitor.state_dict()
    if monitor is not None:
        monitor.close()
        run.report = monitor.report()
    return [one.detach().clone() for one in model.parameters()]


def wrong(run: Run, alone: Run) -> list[str]:
    """Return what a run has against what is promised; nothing where all is well."""
    found = []
    pairs = zip(run.weights, alone.weights, strict=True)
    if not all(torch.equal(one, other) for one, other in pairs):
        found.append("the training went another way")
    if len(run.told) != len(set(run.told)):
        found.append(f"told more than once: {run.told}")
    if run.raised and not any("planted" in text for text in run.told):
        found.append(f"not told: {run.told}")
    if run.raised and not run.failed:
        found.append("no check counts as one that did not run")
    return found


def main() -> None:
    """Try every place."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--calls", type=int, nargs="*", default=[1, 7])
    alone, reached, bad = train(), 0, 0
    every = [(place, call) for place in places() for call in parser.parse_args().calls]
    for place, call in every:
        try:
            run = train(place, call)
            reached += run.raised > 0
            found = wrong(run, alone)
        except PlantedError:
            found = ["it ended the training"]
        bad += bool(found)
        for text in found:
            print(f"{shown(place)}, call {call}: {text}", flush=True)
    print(f"{len(every)} trainings, {reached} of whose monitors raised: {bad} not as promised")


if __name__ == "__main__":
    main()
