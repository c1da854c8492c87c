"""`mlsd scan` of checkpoints of very many small tensors: time, memory, reports.

``python benchmarks/bench_many_tensors.py [--counts 125000 250000 500000]`` writes
one safetensors file for each count (16 values a tensor), scans it in a process of
its own, and prints processor seconds, wall seconds and peak resident memory of
the scan and of writing its report as JSON and text.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

VALUES = 16


def write(path: Path, count: int) -> None:
    """Write `count` float32 matrices of 4 x 4 in layers of eight."""
    size = VALUES * 4
    entries = (
        f'"model.layers.{i // 8}.block.{i % 8}.weight":{{"dtype":"F32","shape":[4,4],'
        f'"data_offsets":[{i * size},{(i + 1) * size}]}}'
        for i in range(count)
    )
    text = ("{" + ",".join(entries) + "}").encode()
    values = np.random.default_rng(0).normal(size=count * VALUES).astype("<f4")
    path.write_bytes(len(text).to_bytes(8, "little") + text + values.tobytes())


def measure(path: Path) -> None:
    """Scan in this process and print a line for each step."""
    from ml_systems_debugger import checkpoints

    def step(name: str, work: object) -> object:
        wall, cpu = time.perf_counter(), time.process_time()
        done = work()  # type: ignore[operator]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
        print(
            f"  {name:<28} {time.process_time() - cpu:6.2f} s of processors"
            f"{time.perf_counter() - wall:7.2f} s  peak {peak:4.0f} MB",
            flush=True,
        )
        return done

    report = step("scan", lambda: checkpoints.scan(path))
    assert isinstance(report, checkpoints.CheckpointReport)
    assert report.status.value == "sound"
    step("text", lambda: str(report))
    step("JSON in parts", lambda: sum(map(len, report.json_parts())))
    step("to_dict()", lambda: len(report.to_dict()["tensors"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[125_000, 250_000, 500_000])
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one is not None:
        measure(given.one)
        return
    with tempfile.TemporaryDirectory() as folder:
        for count in given.counts:
            path = Path(folder) / "many.safetensors"
            write(path, count)
            print(f"{count} tensors, {path.stat().st_size / 1e6:.0f} MB", flush=True)
            subprocess.run([sys.executable, __file__, "--one", str(path)], check=True)


if __name__ == "__main__":
    main()
