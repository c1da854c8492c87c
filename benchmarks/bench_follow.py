"""What following a growing file costs: a poll after one more row, by the size of the file.

    python benchmarks/bench_follow.py [--rows 1000 100000 1000000]

Prints, for each size: reading and judging the whole file at once and in pieces (with the peak of
resident memory each), and the median of 200 polls with one new row each.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ml_systems_debugger import diagnose
from ml_systems_debugger.monitoring import Follower, diagnose_pieces


def write(path: Path, rows: int) -> None:
    with path.open("w", encoding="utf-8") as out:
        out.write("step,loss,grad_norm,lr\n")
        for step in range(rows):
            out.write(f"{step},{2 + 1 / (step + 1):.6f},{1 + step % 7 / 10},0.001\n")


def memory_of(call: str, path: Path) -> tuple[float, float]:
    """Return seconds and peak MB of a call in a process of its own."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import bench_follow; "
    code += f"bench_follow.alone({call!r}, {str(path)!r})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    seconds, peak = done.stdout.split()
    return float(seconds), float(peak)


def alone(call: str, path: str) -> None:
    """Run one call and print what it took; for the process that `memory_of` starts."""
    calls: dict[str, Callable[[str], object]] = {"whole": diagnose, "pieces": diagnose_pieces}
    began = time.perf_counter()
    calls[call](path)
    seconds = time.perf_counter() - began
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def polls(path: Path, rows: int, count: int = 200) -> float:
    """Return the median seconds of a poll with one more row."""
    follower = Follower(path)
    while not follower.tail.caught_up() or follower.tail.position == 0:
        follower.poll()
    taken = []
    with path.open("a", encoding="utf-8") as job:
        for step in range(rows, rows + count):
            job.write(f"{step},2.0,{1 + step % 7 / 10},0.001\n")
            job.flush()
            began = time.perf_counter()
            follower.poll()
            taken.append(time.perf_counter() - began)
    follower.close()
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description="What following a growing file costs.")
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 100_000, 1_000_000])
    rows_given = parser.parse_args().rows
    print("| rows | MB | whole, s | MB at most | in pieces, s | MB at most | a poll, ms |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for rows in rows_given:
            path = Path(folder, "metrics.csv")
            write(path, rows)
            size = path.stat().st_size / 1e6
            whole, whole_peak = memory_of("whole", path)
            pieces, pieces_peak = memory_of("pieces", path)
            poll = polls(path, rows)
            print(f"| {rows:,} | {size:.1f} | {whole:.2f} | {whole_peak:.0f} | {pieces:.2f} "
                  f"| {pieces_peak:.0f} | {poll * 1e3:.2f} |")  # fmt: skip


if __name__ == "__main__":
    main()
