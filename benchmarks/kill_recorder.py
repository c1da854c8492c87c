"""SIGKILL at random moments against the flight recorder: what reads back afterwards.

    python benchmarks/kill_recorder.py [--kills 200] [--seed 0]

Each round starts a process that watches a made-up run with a recorder (names
that come later, steps that are left out, a ring that wraps many times), kills it
after a random time from the moment that the ring exists, and reads the file. In
half of the rounds the writer writes as fast as it can; in the other half it
sleeps now and then, so that kills also come between steps. Every value is a
function of its step and series: one that is not is garbage. Before step `n` the
writer notes it in a mapped file of its own, so that what is missing is known to
the step. The exit status is 1 where a round fell short.
"""

from __future__ import annotations

import argparse
import mmap
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from ml_systems_debugger.core import Series, SignalSet
from ml_systems_debugger.core.ring_file import read_ring

SLOTS, LAYERS = 64, 40

WRITER = """
import mmap, struct, sys, time
import numpy as np
from ml_systems_debugger.core import SeriesKey
from ml_systems_debugger.core.ring_file import RingFile
path, noted, layers, slots, pause = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
with open(noted, "r+b") as file:
    note = mmap.mmap(file.fileno(), 16)
keys = [SeriesKey("loss")] + [SeriesKey("grad_norm", layer=str(i)) for i in range(layers)]
keys += [SeriesKey("update_ratio", layer=str(i)) for i in range(layers)]
ring = RingFile(path, slots, len(keys))
known, step = 1, 0
ring.names(keys[:known])
while True:
    if step in (8, 30):
        known = len(keys) if step == 30 else 1 + layers
        ring.names(keys[:known])
    columns = np.arange(1 + layers if known > 1 and step % 3 else 1)
    if step >= 30 and step % 10 == 0:
        columns = np.arange(known)
    struct.pack_into("<q", note, 0, step + 1)  # it begins
    ring.write(step, columns, step + columns / 1024)
    struct.pack_into("<q", note, 8, step + 1)  # it is done
    if pause and step % 7 == 0:
        time.sleep(0.0005)
    step += 1
"""


def expected_columns(step: int) -> int:
    """Return how many columns the writer gives at `step`."""
    if step >= 30 and step % 10 == 0:
        return 1 + 2 * LAYERS
    return 1 + LAYERS if step >= 8 and step % 3 else 1


def column_of(one: Series) -> int:
    """Return the writer's column of a series."""
    if one.key.layer is None:
        return 0
    return 1 + int(one.key.layer) + (LAYERS if one.key.name == "update_ratio" else 0)


def judge(run: SignalSet, begun: int, done: int) -> str:
    """Return what is wrong with what was read back: nothing, or a sentence.

    Parameters
    ----------
    run : SignalSet
    begun, done : int
        Steps whose writing had begun, and those that were written whole.
    """
    there: Counter[int] = Counter()
    for one in run.series:
        column = column_of(one)
        for step, value in zip(one.steps.tolist(), one.values.tolist(), strict=True):
            if value != step + column / 1024 or column >= expected_columns(step):
                return f"garbage: {one.key} is {value} at step {step}"
            there[step] += 1
    for step, count in there.items():
        if count != expected_columns(step):
            return f"step {step} has {count} values of {expected_columns(step)}"
    # The slot that was being written has lost its old step: one less than the slots may be there.
    needed = set(range(max(0, done - SLOTS + (begun > done)), done))
    missing = sorted(needed - set(there))
    if missing:
        return f"steps {missing} were written whole and are not there ({done} done)"
    if beyond := [step for step in there if step >= begun]:
        return f"steps {beyond} had not begun"
    return ""


def one_round(folder: Path, chance: random.Random, pause: bool) -> tuple[str, bool, int]:
    """Kill one writer; return what is wrong, whether a step was half written, and steps done."""
    ring, noted = folder / "run.ring", folder / "noted"
    ring.unlink(missing_ok=True)
    noted.write_bytes(bytes(16))
    command = [sys.executable, "-c", WRITER, str(ring), str(noted), str(LAYERS), str(SLOTS)]
    with noted.open("r+b") as file:
        note = mmap.mmap(file.fileno(), 16)
    with subprocess.Popen([*command, str(int(pause))]) as process:
        while not int.from_bytes(note[:8], "little"):
            if process.poll() is not None:
                raise RuntimeError(f"the writer ended with {process.returncode}")
            time.sleep(0.001)
        # From the first steps, where names change, to many turns of the ring.
        time.sleep(chance.random() ** 3 * 0.2)
        process.send_signal(signal.SIGKILL)
        process.wait()
    begun, done = (int.from_bytes(note[at : at + 8], "little") for at in (0, 8))
    note.close()
    run = read_ring(ring.read_bytes(), str(ring))
    torn = int(run.metadata["torn"])
    if torn > 1:
        return f"{torn} slots are half written", True, done
    return judge(run, begun, done), torn > 0, done


def main() -> int:
    """Print a line for every round that fell short, and the sum."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not hasattr(signal, "SIGKILL"):
        parser.error("there is no SIGKILL here")
    chance = random.Random(options.seed)
    wrong, half, steps = 0, 0, []
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.kills):
            said, torn, done = one_round(Path(folder), chance, number % 2 == 1)
            wrong, half = wrong + bool(said), half + torn
            steps.append(done)
            if said:
                print(f"round {number}: {said}")
    print(
        f"{options.kills} kills in {time.perf_counter() - began:.0f} s on {os.uname().machine}: "
        f"{options.kills - wrong} read back whole, {wrong} did not; in {half} the last step was "
        f"half written and left out; {min(steps)} to {max(steps)} steps before the kill"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
