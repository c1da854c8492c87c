"""Record the two runs in `runs/`: one with a planted fault, and its healthy twin.

    python examples/record_run.py [--steps 1200] [--to examples/runs]

A small leaky-ReLU network learns the handwritten digits that come with scikit-learn
(1797 images, CPU, a few seconds). Both runs share seed, data order and
initialisation; they differ in one line of the schedule:

healthy
    The rate warms up over 100 steps to its base value and stays there.
lr_jump
    The warm-up is restarted at step 700, as after a resumed job, but scales
    the optimiser's present rate and not the base rate. The rate climbs to ten
    times the base over 20 steps; the gradients explode; the loss is NaN some
    steps later.

Needs torch and scikit-learn. What it writes is checked in; see `runs/README.md`.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn

BASE_RATE = 0.05
WARM_UP = 100
RESTART = 700
RAMP = 20
FACTOR = 10.0
BATCH = 64
EVALUATE_EVERY = 50


def rate(step: int, faulty: bool) -> float:
    """Return the learning rate at `step`, with the schedule's fault or without."""
    warm = BASE_RATE * min(1.0, (step + 1) / WARM_UP)
    if not faulty or step < RESTART:
        return warm
    done = min(1.0, (step - RESTART + 1) / RAMP)
    return BASE_RATE * (1.0 + (FACTOR - 1.0) * done)  # should be: warm


def network() -> nn.Sequential:
    """Return the untrained network: three layers, leaky ReLU between them."""
    return nn.Sequential(
        nn.Linear(64, 128),
        nn.LeakyReLU(0.1),
        nn.Linear(128, 64),
        nn.LeakyReLU(0.1),
        nn.Linear(64, 10),
    )


def record(steps: int, faulty: bool) -> list[dict[str, str]]:
    """Train for `steps` and return one row per step; a blank is "not logged"."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # the same sums on every machine with this build of torch
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images / 16.0, dtype=torch.float32)
    y = torch.tensor(labels)
    order = torch.randperm(len(x))
    held_out, train = order[:360], order[360:]
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=BASE_RATE, momentum=0.9)
    targets = nn.functional.one_hot(y, 10).float()
    rows = []
    for step in range(steps):
        batch = train[torch.randint(len(train), (BATCH,))]
        optimizer.param_groups[0]["lr"] = rate(step, faulty)
        optimizer.zero_grad()
        loss = (model(x[batch]) - targets[batch]).square().sum(1).mean()  # the Brier score
        loss.backward()
        norms = {n: p.grad.norm() for n, p in model.named_parameters() if p.grad is not None}
        row = {
            "step": str(step),
            "loss": f"{loss.item():.6g}",
            "lr": f"{rate(step, faulty):.6g}",
            "grad_norm": f"{torch.stack(list(norms.values())).norm().item():.6g}",
        }
        row |= {f"grad_norm/{n}": f"{v.item():.4g}" for n, v in norms.items() if "weight" in n}
        if step % EVALUATE_EVERY == EVALUATE_EVERY - 1:
            with torch.no_grad():
                right = model(x[held_out]).argmax(1) == y[held_out]
            row["val_accuracy"] = f"{right.float().mean().item():.4f}"
        rows.append(row)
        optimizer.step()
    return rows


def write(rows: list[dict[str, str]], path: Path) -> None:
    """Write `rows` as CSV, in the columns of all of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Record both runs."""
    parser = argparse.ArgumentParser(description="Record a faulty run and its healthy twin.")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--to", type=Path, default=Path(__file__).parent / "runs")
    given = parser.parse_args()
    for name, faulty in (("lr_jump", True), ("healthy", False)):
        target = given.to / name / "metrics.csv"
        write(record(given.steps, faulty), target)
        print(f"{target}: {target.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
