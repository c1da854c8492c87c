"""Replicas that watch each other: what judging one exchange takes, and the bytes it sends.

    python benchmarks/bench_replicas.py            # 4 to 16,384 ranks
    python benchmarks/bench_replicas.py --ranks 16384 --rounds 40

Each figure is the median of several exchanges, in milliseconds of the processor: one
thread judges. The columns:

- the same medians and MADs by NumPy, and by us with who stands out of all of them: a
  table of 64 scalars of every rank.
- a whole exchange of a monitor's own records (64 bytes: ten scalars that are judged, two
  digest roots, calls): roots compared, scalars screened, detectors, norms behind the
  reduction. Up to 64 ranks the detectors look at all of them.
- the same with 64 scalars screened instead of ten: the sum of what was measured.
- a whole exchange at which one rank's parameters parted, with the digests of 148 of
  them from every rank: finding the parameter and the rank.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ml_systems_debugger import Configuration, MLSystemsDebugger
from ml_systems_debugger.monitoring._replica_channel import camps, firsts_of, odd_calls
from ml_systems_debugger.monitoring._replica_judge import Judge
from ml_systems_debugger.monitoring._replica_record import RECORD, SCALARS, Located
from ml_systems_debugger.monitoring._replica_screen import Screen

PARAMETERS, TABLE, EVERY = 148, 64, 16


def records(ranks: int, step: int, rng: np.random.Generator) -> Any:
    """Return the records of a healthy exchange."""
    made = np.zeros(ranks, RECORD)
    made["step"], made["steps"], made["has"] = step, EVERY, (1 << len(SCALARS)) - 1
    made["times"] = rng.normal(0.5, 0.01, (ranks, 8))
    for name in ("loss", "local_norm"):
        made[name] = rng.normal(1.0, 0.05, ranks)
    made["grad_norm"], made["step_time"], made["roots"] = 1.0, 0.6, 7
    return made


def judge(ranks: int) -> Judge:
    """Return a judge of so many ranks, with all detectors that look at replicas."""
    detectors = MLSystemsDebugger(None, config=Configuration()).detectors
    names = [f"layer{at}" for at in range(PARAMETERS)]
    kinds = dict.fromkeys(range(PARAMETERS), 0)
    return Judge(detectors, {}, True, list(range(ranks)), names, kinds)


def milliseconds(rounds: int, given: Callable[[int], Any], call: Callable[[Any], object]) -> float:
    """Return the median of a call, without what makes its input."""
    taken = []
    for at in range(rounds):
        made = given(at)
        began = time.thread_time()
        call(made)
        taken.append(time.thread_time() - began)
    return 1e3 * statistics.median(taken[rounds // 4 :])


def row(ranks: int, rounds: int) -> list[float]:
    """Return the milliseconds of each column."""
    rng = np.random.default_rng(0)
    firsts = firsts_of(np.zeros((ranks, 4), np.uint64))
    made, calls = judge(ranks), np.zeros(ranks, np.int64)
    step = itertools.count(EVERY - 1, EVERY)

    def exchange(_: int) -> Any:
        return records(ranks, next(step), rng)

    def compared(given: Any) -> None:  # as the channel does it with every exchange
        parts = camps(given["roots"], firsts)
        assert np.array_equal(parts, firsts)
        assert not odd_calls(given["calls"].astype(np.int64), calls).any()

    def whole(given: Any) -> None:
        compared(given)
        assert made.take((given, None), firsts) == []

    record = milliseconds(rounds, exchange, whole)

    odd = ranks // 2
    digests = rng.integers(0, 2**63, PARAMETERS).astype(np.uint64)
    held = np.tile(digests, (ranks, 1))
    held[odd, 7:] += np.uint64(1)

    def parted(_: int) -> Any:
        given = exchange(0)
        given["roots"][odd] = 8
        return given, Located(int(given["step"][0]), False, calls, held), judge(ranks)

    def located(given: Any) -> None:
        camps(given[0]["roots"], firsts)
        (found,) = given[2].take(given[:2], firsts)
        assert (found.replica_id, found.layer) == (odd, "layer7")

    mismatch = milliseconds(max(rounds // 4, 4), parted, located)

    def table(_: int) -> Any:
        return rng.normal(1, 0.05, (TABLE, ranks))

    screen = milliseconds(rounds, table, Screen(ranks).outside)
    ten = milliseconds(rounds, table, lambda x: Screen(ranks).outside(x[:10]))
    plain = milliseconds(
        max(rounds // 8, 4), table,
        lambda x: np.median(np.abs(x - np.median(x, axis=1)[:, None]), axis=1),
    )  # fmt: skip
    return [plain, screen, record, record + screen - ten, mismatch]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ranks", type=int, nargs="*", default=[4, 64, 256, 1024, 4096, 16384])
    parser.add_argument("--rounds", type=int, default=40)
    given = parser.parse_args()
    print(
        "| ranks | NumPy's median and MAD of 64 | all of 64 scalars screened | an exchange of 64 "
        "bytes, whole | with 64 scalars | where parameters parted | bytes a rank: own, gathered |"
    )
    print("|---|---|---|---|---|---|---|")
    for ranks in given.ranks:
        told = " | ".join(f"{one:.2f}" for one in row(ranks, given.rounds))
        size = RECORD.itemsize
        print(f"| {ranks:,} | {told} | {size}, {size * ranks:,} |", flush=True)


if __name__ == "__main__":
    main()
