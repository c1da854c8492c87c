"""A million steps of loss and grad_norm through every detector: CPU seconds and memory.

    python benchmarks/million_steps.py [--steps 1000000] [--rounds 5]

Each round is a process of its own, so that CPU time and peak memory are those
of one diagnosis; the interpreter with NumPy alone is measured beside it and
subtracted. Printed: the median of the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

_WORK = """
import json, resource, sys, time
import numpy as np
steps = int(sys.argv[1]); what = sys.argv[2]
rng = np.random.default_rng(0)
loss = 0.3 + 2.0 * np.exp(-np.arange(steps) / (steps / 5)) + rng.normal(0, 0.05, steps)
norm = np.exp(rng.normal(0, 0.3, steps))
data = {"loss": loss, "grad_norm": norm}
before = after = 0.0
if what == "diagnose":
    import ml_systems_debugger as mlsd
    mlsd.diagnose({"loss": [1.0, 0.9], "grad_norm": [1.0, 1.0]})  # imports are not the matter here
    before = time.process_time()
    report = mlsd.diagnose(data)
    after = time.process_time()
    assert not report.failed_checks, report.failed_checks
elif what == "python":
    # The plain-loop baseline: NaN, Inf, a running mean and a 10x jump, nothing else.
    lists = {name: values.tolist() for name, values in data.items()}
    before = time.process_time()
    for values in lists.values():
        mean, bad, jumps = values[0], 0, 0
        for value in values:
            if value != value or value in (float("inf"), float("-inf")):
                bad += 1
                continue
            jumps += value > 10 * mean
            mean += 0.01 * (value - mean)
    after = time.process_time()
print(json.dumps({"cpu": after - before,
                  "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


def measure(steps: int, what: str, rounds: int) -> dict[str, float]:
    """Return medians over `rounds` processes."""
    found = [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", _WORK, str(steps), what],
                capture_output=True, check=True, text=True,
            ).stdout
        )
        for _ in range(rounds)
    ]  # fmt: skip
    return {key: statistics.median(f[key] for f in found) for key in found[0]}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print("| steps | diagnose, CPU s | per step, ns | plain loops, CPU s | memory above data, MB |")
    print("|---|---|---|---|---|")
    for steps in options.steps:
        base = measure(steps, "nothing", options.rounds)
        ours = measure(steps, "diagnose", options.rounds)
        loops = measure(steps, "python", max(1, options.rounds // 2))
        above = ours["rss_mb"] - base["rss_mb"]
        print(
            f"| {steps:,} | {ours['cpu']:.3f} | {ours['cpu'] / steps * 1e9:.0f} "
            f"| {loops['cpu']:.3f} | {above:.0f} |"
        )


if __name__ == "__main__":
    main()
