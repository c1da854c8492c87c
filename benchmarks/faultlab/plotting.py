"""The reliability of confidences on held-out families, as a picture.

    python benchmarks/faultlab/plotting.py VERDICTS.json OUT.png

`VERDICTS.json` is what ``lab.py judge RUNS --write`` wrote. Points are equally full bins of the
held-out predictions: mean confidence against the share that was right, with 95 % intervals.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from families import HELD_OUT
from judging import ece

from ml_systems_debugger.attribution.calibration import Calibration
from ml_systems_debugger.evaluation._intervals import wilson

BINS = 10


def main(verdicts: str, out: str) -> None:
    told = json.loads(Path(verdicts).read_text(encoding="utf-8"))
    calibration = Calibration.from_dict(told["calibration"])
    made = [v for v in told["verdicts"] if v["family"] in HELD_OUT and v["confidence"] is not None]
    right = np.array([bool(v["top1"]) for v in made], float)
    raw = np.array([v["confidence"] for v in made], float)
    figure, axes = plt.subplots(figsize=(4.6, 4.4), dpi=110)
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for name, p, colour in (
        ("raw", raw, "tab:gray"),
        ("calibrated", np.array([calibration(value) for value in raw]), "tab:blue"),
    ):
        parts = np.array_split(np.argsort(p, kind="stable"), BINS)
        x = [p[part].mean() for part in parts]
        y = np.array([right[part].mean() for part in parts])
        ends = np.array([wilson(int(right[part].sum()), len(part)) for part in parts])
        error = np.maximum([y - ends[:, 0], ends[:, 1] - y], 0.0)
        label = f"{name}: calibration error {ece(p, right):.3f}"
        axes.errorbar(x, y, yerr=error, fmt="o", color=colour, markersize=4, capsize=2, label=label)
    axes.set(
        xlabel="confidence of the first cause", ylabel="share that was right",
        xlim=(0, 1.02), ylim=(0, 1.05),
        title=f"{len(made)} predictions on held-out families",
    )  # fmt: skip
    axes.legend(loc="upper left", frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
