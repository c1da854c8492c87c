"""The fault laboratory: train small real networks with planted faults, and judge what is found.

    python benchmarks/faultlab/lab.py make --out RUNS [--seeds 0:3] [--workers 2]
    python benchmarks/faultlab/lab.py judge RUNS [--minimal] [--sensitivity 1.0] [--write FILE]

`make` writes one JSONL log per run and ``labels.json`` with the truth. `judge`
diagnoses every run, learns the calibration of confidences on the families of
`families.CALIBRATION` alone, and reports on those of `families.HELD_OUT`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from families import FAMILIES

HEALTHY_SEEDS = 3  # healthy runs of each control for one of a fault


@dataclasses.dataclass(frozen=True)
class Job:
    """One run to make."""

    kind: str
    family: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.family}-{self.kind}-{self.seed}"


def jobs(seeds: range, healthy: range) -> Iterator[Job]:
    import replicas
    from faults import MAKERS
    from healthy import CONTROLS

    for family in FAMILIES:
        for kind, (_, allowed) in MAKERS.items():
            if allowed is None or family in allowed:
                yield from (Job(kind, family, seed) for seed in seeds)
        for kind in CONTROLS:
            yield from (Job(kind, family, seed) for seed in healthy)
    for family in ("mlp_digits", "autoencoder", "cnn_digits", "mlp_cancer"):
        yield from (Job(kind, family, seed) for kind in replicas.KINDS for seed in seeds)
        yield from (Job(kind, family, seed) for kind in replicas.HEALTHY for seed in healthy)


def make_one(job: Job, out: Path) -> tuple[str, dict[str, Any]]:
    """Train one run and write its log; return its label."""
    import replicas
    import torch
    from faults import MAKERS
    from healthy import CONTROLS
    from trainer import Run

    torch.set_num_threads(1)
    family = FAMILIES[job.family]
    seed = zlib.crc32(job.name.encode())
    path = out / f"{job.name}.jsonl"
    if job.kind in replicas.KINDS or job.kind in replicas.HEALTHY:
        planted, rows = replicas.make(job.kind, family, seed)
    else:
        rng = np.random.default_rng(seed)
        make = MAKERS[job.kind][0] if job.kind in MAKERS else CONTROLS[job.kind]
        planted = make(family, family.steps, rng)
        settings = {
            "steps": family.steps, "batch": family.batch, "schedule": family.schedule,
            "lr": family.lr, "clip": family.clip, "weight_decay": family.weight_decay,
            **planted.settings,
        }  # fmt: skip
        rows = Run(family, seed, planted.fault, **settings).train()
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")
    return job.name, {"family": job.family, **dataclasses.asdict(planted.truth)}


def make(
    out: Path, seeds: range, healthy: range, workers: int, only: str | None, families: list[str]
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    todo = [
        job for job in jobs(seeds, healthy)
        if job.family in families and (only is None or only in job.name)
    ]  # fmt: skip
    labels_path = out / "labels.json"
    labels = json.loads(labels_path.read_text()) if labels_path.exists() else {}
    todo = [job for job in todo if job.name not in labels]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(make_one, job, out) for job in todo]
        for done, future in enumerate(futures, 1):
            name, label = future.result()
            labels[name] = label
            if done % 20 == 0 or done == len(futures):
                labels_path.write_text(json.dumps(labels, indent=1))
                print(f"{done} of {len(futures)} runs", file=sys.stderr)


def seeds_of(text: str) -> range:
    first, _, last = text.partition(":")
    return range(int(first), int(last)) if last else range(int(first))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["make", "judge"])
    parser.add_argument("runs", nargs="?", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seeds", type=seeds_of, default=range(3))
    parser.add_argument("--healthy", type=seeds_of, default=range(4))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", help="runs whose names hold this text")
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--minimal", action="store_true")
    parser.add_argument("--sensitivity", type=float, default=1.0)
    parser.add_argument("--calibration-families", action="store_true",
                        help="judge these alone, while rules are chosen")  # fmt: skip
    parser.add_argument("--write", type=Path)
    parser.add_argument("--verbose", action="store_true")
    given = parser.parse_args()
    folder = given.runs or given.out
    if given.what == "make":
        make(folder, given.seeds, given.healthy, given.workers, given.only, given.families)
        return
    from judging import judge

    judge(
        folder, given.minimal, given.write, given.workers, given.verbose, given.sensitivity,
        given.calibration_families,
    )  # fmt: skip


if __name__ == "__main__":
    main()
