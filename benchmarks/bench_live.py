"""What the detectors of a live run take for a step.

    python benchmarks/bench_live.py

For steps that come one by one, in blocks of 128, and as the monitor gives them: in blocks
of 128 for some, of 256 for others, and none to a detector that reads nothing of them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import numpy as np

from ml_systems_debugger.core import SeriesKey, SignalSet, detectors
from ml_systems_debugger.monitoring._judges import Judges
from ml_systems_debugger.monitoring._steps import StepBuffer

BLOCK = 128
USUAL = {
    "lr": 1e-3, "data_time": 0.02, "comm_time": 0.1, "loss_scale": 65536.0, "skipped_step": 0.0,
    "memory_allocated": 0.8, "max_memory_allocated": 0.8, "update_ratio": 1e-3,
}  # fmt: skip


def quantities() -> list[SeriesKey]:
    """Return one series of every quantity that a detector names."""
    names = {name for cls in detectors.items().values() for name in cls().get_required_signals()}
    return [SeriesKey(name) for name in sorted(names - {"log_event_kind", "log_event"})]


def blocks(layers: int, steps: int, count: int, size: int) -> Iterator[SignalSet]:
    """Yield blocks of a made-up healthy run with `count` single series and `layers` others."""
    rng, buffer = np.random.default_rng(0), StepBuffer(size)
    if count == 1:
        keys = quantities()
    else:
        keys = [SeriesKey("loss"), SeriesKey("lr"), SeriesKey("grad_norm")]
    layered = [SeriesKey("grad_norm", layer=f"layer.{k}") for k in range(layers)]
    for step in range(steps):
        buffer.begin(step)
        for key in keys:
            size = USUAL.get(key.name, 1.0)
            exact = key.name in ("lr", "loss_scale", "collective_seq", "seed")
            buffer.put(key, size if exact else size * float(1 + 0.01 * rng.normal()))
        if layered:
            values = np.exp(rng.normal(0, 0.3, layers))
            buffer.put_group("layers", buffer.group("layers", layered), values)
        if buffer.full:
            yield buffer.drain()


def main() -> None:
    """Print what the detectors take for a step."""
    print("| us a step, all detectors | steps one by one | in blocks of 128 | as by the monitor |")
    print("|---|---|---|---|")
    for title, layers, count in (
        ("one series of each of their quantities", 0, 1),
        ("loss, learning rate and gradient norm", 0, 3),
        ("600 gradient norms beside those", 600, 3),
    ):
        told = []
        for size in (1, BLOCK):
            folds = [cls() for cls in detectors.items().values()]
            states = [detector.init() for detector in folds]
            taken = []
            for chunk in blocks(layers, 640 if size == 1 else 5120, count, size):
                names = set(chunk.names)
                began = time.perf_counter()
                for detector, state in zip(folds, states, strict=True):
                    needed = detector.get_required_signals()
                    if not needed or not names.isdisjoint(needed):
                        detector.update(state, chunk)
                taken.append((time.perf_counter() - began) / size)
            told.append(1e6 * statistics.median(taken[len(taken) // 4 :]))
        judges = Judges([cls() for cls in detectors.items().values()], {}, strict=True)
        taken = []
        for chunk in blocks(layers, 10 * 256, count, BLOCK):
            began = time.perf_counter()
            judges.update(chunk, steps=BLOCK)
            taken.append((time.perf_counter() - began) / BLOCK)
        looks = np.array(taken[len(taken) // 5 :]).reshape(-1, 2).mean(axis=1)  # of 256 steps each
        told.append(1e6 * float(np.median(looks)))
        print(f"| {title} | {told[0]:.1f} | {told[1]:.1f} | {told[2]:.1f} |")


if __name__ == "__main__":
    main()
