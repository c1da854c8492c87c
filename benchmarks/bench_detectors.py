"""The detectors: a long run, many series, a live step; and published rules beside them.

    python benchmarks/bench_detectors.py [--steps 1000000] [--rounds 5]

CPU seconds of the process, medians. The plain-loop baselines are published
rules written as anyone would: loss spikes by a robust z over a window
(OLMo-core), growth over the minimum (TheDeepChecker), a moving z of the
gradient norm (ZClip); each sees one series and keeps no onset.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from ml_systems_debugger.core import BaseDetector, Series, SeriesKey, SignalSet, detectors

LAYERS, REPLICAS, SHORT = 150, 8, 2000


def long_run(steps: int) -> SignalSet:
    """Make a healthy run with a loss and a gradient norm at every step."""
    rng = np.random.default_rng(0)
    at = np.arange(steps)
    loss = 0.3 + 2.0 * np.exp(-at / (steps / 5)) + rng.normal(0, 0.05, steps)
    norm = np.exp(rng.normal(0, 0.3, steps))
    return SignalSet(
        [Series(SeriesKey("loss"), at, loss), Series(SeriesKey("grad_norm"), at, norm)]
    )


def wide_run() -> SignalSet:
    """Make a run of 2,000 steps with the gradient norms of 150 layers on 8 replicas."""
    rng = np.random.default_rng(0)
    at = np.arange(SHORT)
    return SignalSet(
        Series(
            SeriesKey("grad_norm", layer=f"layer.{layer}", replica_id=replica),
            at,
            np.exp(rng.normal(0, 0.3, SHORT)),
        )
        for replica in range(REPLICAS)
        for layer in range(LAYERS)
    )


def cpu(call: Callable[[], object], rounds: int) -> float:
    """Return the median CPU seconds of a call."""
    found = []
    for _ in range(rounds):
        before = time.process_time()
        call()
        found.append(time.process_time() - before)
    return statistics.median(found)


def live(detector: BaseDetector, run: SignalSet, steps: int = 500) -> float:
    """Return CPU seconds per step when steps come one by one."""
    state = detector.init()
    chunks = [run.between(at, at + 1) for at in range(steps)]
    before = time.process_time()
    for chunk in chunks:
        detector.update(state, chunk)
    return (time.process_time() - before) / steps


def spike_rule(values: list[float]) -> int:
    """Robust z above 6 over the last 128 values (OLMo-core), on lists, medians every value."""
    alarms = 0
    for at in range(128, len(values)):
        window = sorted(values[at - 128 : at])
        middle = window[64]
        spread = sorted(abs(v - middle) for v in window)[64]
        alarms += values[at] - middle > 6 * 1.4826 * spread
    return alarms


def growth_rule(values: list[float]) -> int:
    """At least twice the minimum so far (TheDeepChecker)."""
    lowest, alarms = values[0], 0
    for value in values:
        lowest = min(lowest, value)
        alarms += value >= 2 * lowest
    return alarms


def moving_rule(values: list[float]) -> int:
    """Exponential moving z above 2.5 with a memory of 0.97 (ZClip)."""
    mean, variance, alarms = values[0], 1.0, 0
    for value in values:
        alarms += value - mean > 2.5 * variance**0.5
        mean = 0.97 * mean + 0.03 * value
        variance = 0.97 * variance + 0.03 * (value - mean) ** 2
    return alarms


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    run, wide = long_run(options.steps), wide_run()
    all_of = {name: cls() for name, cls in detectors.items().items()}
    needs = {n: {"loss", "grad_norm"} & set(d.get_required_signals()) for n, d in all_of.items()}
    print(f"| detector | {options.steps:,} steps, CPU s | {len(wide.series):,} series x {SHORT:,}, "
          f"CPU s | live step, us |\n|---|---|---|---|")  # fmt: skip
    total = 0.0
    for name, detector in all_of.items():
        if not needs[name] and detector.get_required_signals():
            continue
        seconds = cpu(lambda: detector.detect(run), options.rounds)  # noqa: B023 - called here
        total += seconds
        many = cpu(lambda: detector.detect(wide), 1)  # noqa: B023 - called here
        print(f"| {name} | {seconds:.3f} | {many:.3f} | {live(detector, run) * 1e6:.1f} |")
    print(f"| together | {total:.3f} | | |")
    print("\n| plain loop over one series of 100,000 values | CPU s |\n|---|---|")
    loss = run.series[0].values[:100_000].tolist()
    norm = run.series[1].values[:100_000].tolist()
    for title, rule, values in (
        ("robust z > 6 over 128 (OLMo-core)", spike_rule, loss),
        ("twice the minimum (TheDeepChecker)", growth_rule, loss),
        ("moving z > 2.5 (ZClip)", moving_rule, norm),
    ):
        alarms = rule(values)
        seconds = cpu(lambda: rule(values), 1)  # noqa: B023 - called here
        print(f"| {title}: {alarms} alarms on this healthy run | {seconds:.3f} |")


if __name__ == "__main__":
    main()
