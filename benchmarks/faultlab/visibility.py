"""Whether a fault shows at all in three curves: each run beside its healthy twin.

    python benchmarks/faultlab/visibility.py RUNS [--only bad_batch unscaled ...]

The twin is trained from the same seed and settings without the fault: up to the
onset both are the same, number for number. A fault is visible in a curve where,
in the 50 steps from its onset on, the faulty run does what the twin does nowhere:

- a value farther from the median of the 32 before it, on the logarithm, than any
  of the twin; or
- a level (the median of these 50) farther from the twin's at the same steps
  than any two neighbouring levels of the twin are from one another.

No detector is asked, and no threshold chosen: the twin says what is usual.
"""

from __future__ import annotations

import argparse
import collections
import json
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from families import FAMILIES

CURVES = ("loss", "grad_norm", "lr")
BEFORE, AFTER = 32, 50
_TINY = 1e-12


def curve(rows: list[dict[str, Any]], name: str) -> np.ndarray:
    """Return the logarithms of a curve [n]; what is not finite is as far away as can be."""
    values = np.array([row[name] for row in rows], float)
    values = np.where(np.isfinite(values), values, 1e300)
    return np.log(np.maximum(np.abs(values), _TINY))


def leaps(values: np.ndarray) -> np.ndarray:
    """Return the distance of each value from the median of the 32 before it [n - 32]."""
    windows = np.lib.stride_tricks.sliding_window_view(values, BEFORE)[:-1]
    return np.abs(values[BEFORE:] - np.median(windows, axis=1))


def shows(faulty: np.ndarray, twin: np.ndarray, onset: int) -> bool:
    """Return whether a curve does from its onset on what the twin never does."""
    part = slice(onset, onset + AFTER)
    if not np.array_equal(faulty[:onset], twin[:onset]):
        raise ValueError("the twin is none: it differs before the onset")
    early = BEFORE  # a start is no measure of what is usual
    if leaps(faulty)[onset - BEFORE :][:AFTER].max() > leaps(twin)[early:].max():
        return True
    levels = np.array([np.median(twin[at : at + AFTER])
                       for at in range(BEFORE + early, len(twin) - AFTER + 1, AFTER)])  # fmt: skip
    moved = abs(float(np.median(faulty[part]) - np.median(twin[part])))
    return bool(moved > np.abs(np.diff(levels)).max())


def visible(name: str, folder: Path) -> dict[str, bool]:
    """Return in which curves the fault of a run shows."""
    import torch
    from faults import MAKERS
    from trainer import Fault, Run

    torch.set_num_threads(1)
    family_name, kind, _ = name.rsplit("-", 2)
    family, seed = FAMILIES[family_name], zlib.crc32(name.encode())
    planted = MAKERS[kind][0](family, family.steps, np.random.default_rng(seed))
    settings = {
        "steps": family.steps, "batch": family.batch, "schedule": family.schedule,
        "lr": family.lr, "clip": family.clip, "weight_decay": family.weight_decay,
        **planted.settings,
    }  # fmt: skip
    twin = Run(family, seed, Fault(), **settings).train()
    rows = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
    onset = planted.truth.onset or 0
    return {
        which: shows(curve(rows, which), curve(twin, which), onset) for which in CURVES
    }  # fmt: skip


def main() -> None:
    """Print, by family and kind, how many faults show in any of the three curves."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("--only", nargs="+", default=["bad_batch", "unscaled"])
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    labels = json.loads((given.runs / "labels.json").read_text())
    found = {
        name: visible(name, given.runs)
        for name, label in sorted(labels.items())
        if label["fault"] in given.only
    }
    table = collections.Counter(
        (labels[name]["family"], labels[name]["fault"], any(seen.values()))
        for name, seen in found.items()
    )
    for family, fault in sorted({(a, b) for a, b, _ in table}):
        seen, hidden = table[family, fault, True], table[family, fault, False]
        print(f"{family} {fault}: {seen} of {seen + hidden} show in a curve")
    if given.write is not None:
        given.write.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
