"""Draw the two plots of the README from what `kernels.py --json FILE` measured.

python benchmarks/plots.py FILE [--out benchmarks]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

COLUMNS = ("64 KiB 1T", "4 MiB 1T", "256 MiB 1T", "256 MiB 2T")


def by_size(found: dict[str, Any], path: Path) -> None:
    """Fraction of the read limit by size, one line per kernel, one panel per dtype."""
    figure, panels = plt.subplots(1, len(found), figsize=(4 * len(found), 3.2), sharey=True)
    for panel, (dtype, rows) in zip(panels, found.items(), strict=True):
        for name, values in rows.items():
            if name != "limit":
                panel.plot(COLUMNS, values, marker="o", label=name)
        panel.axhline(1.0, color="grey", linewidth=0.8)
        panel.set_title(dtype)
        panel.tick_params(axis="x", rotation=30)
    panels[0].set_ylabel("fraction of the read limit")
    panels[-1].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def against_peers(found: dict[str, Any], path: Path) -> None:
    """Speed of every call over 4 MiB and 256 MiB, on a logarithmic axis."""
    sizes = [size for size in found if size != "64 KiB"]
    names = list(found[sizes[0]])
    figure, panel = plt.subplots(figsize=(8, 0.32 * len(names) + 1))
    height = 0.8 / len(sizes)
    for i, size in enumerate(sizes):
        places = [j + i * height for j in range(len(names))]
        panel.barh(places, [found[size][name] for name in names], height, label=size)
    panel.set_yticks(range(len(names)), names, fontsize="small")
    panel.invert_yaxis()
    panel.set_xscale("log")
    panel.set_xlabel("GB/s, float32, one thread")
    panel.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    for target, found in json.loads(options.file.read_text()).items():
        if "limits" in found:
            by_size(found["limits"], options.out / f"limits-{target}.png")
        if "peers" in found:
            against_peers(found["peers"], options.out / f"peers-{target}.png")


if __name__ == "__main__":
    main()
