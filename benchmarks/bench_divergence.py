"""Divergences against scipy, numkong, NumPy and plain Python.

python benchmarks/bench_divergence.py
"""

from __future__ import annotations

import argparse
import math

import numpy as np

from _peers import compare, peer
from ml_systems_debugger.kernels import (
    compare_samples,
    js_divergence,
    kl_divergence,
    psi,
    total_variation,
)
from ml_systems_debugger.kernels.reference import distributions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    special, spatial, stats = peer("scipy.special"), peer("scipy.spatial"), peer("scipy.stats")
    numkong = peer("numkong")
    kld = None if numkong is None else getattr(numkong, "kullbackleibler", None) or numkong.kld
    for n in (64, 10_000, 1_000_000):
        p, q = np.random.default_rng(n).random((2, n))
        p /= p.sum()
        q /= q.sum()
        compare(
            f"KL of {n} bins, one thread",
            {
                "here": lambda: kl_divergence(p, q),  # noqa: B023 - called here
                "numkong, float64": (lambda: kld(p, q)) if kld else None,  # noqa: B023
                "NumPy": lambda: float((p * np.log(p / q)).sum()),  # noqa: B023
                "scipy.special.rel_entr": (lambda: special.rel_entr(p, q).sum())  # noqa: B023
                if special
                else None,
            },
            scale=1e3 if n > 1000 else 1e6,
            unit="ms" if n > 1000 else "us",
            rounds=options.rounds,
        )
    exact = distributions.kl_divergence(p.tolist(), q.tolist())
    print(f"\nrelative error of KL at {n} bins, against math.fsum")
    print(f"  here    {abs(kl_divergence(p, q) / exact - 1):.1e}")
    if kld:
        print(f"  numkong {abs(float(kld(p, q)) / exact - 1):.1e}")
    q_empty = q.copy()
    q_empty[0] = 0.0
    print(f"  with an empty bin in q: here {kl_divergence(p, q_empty)}", end="")
    print(f", numkong {float(kld(p, q_empty))}" if kld else "")
    compare(
        f"others of {n} bins",
        {
            "KL, here": lambda: kl_divergence(p, q),
            "JS, here": lambda: js_divergence(p, q),
            "PSI, here": lambda: psi(p, q),
            "total variation, here": lambda: total_variation(p, q),
            "JS, scipy": (lambda: spatial.distance.jensenshannon(p, q)) if spatial else None,
        },
        rounds=options.rounds,
    )
    few, other = p[:20_000].tolist(), q[:20_000].tolist()
    compare(
        "KL of 20000 bins, plain Python",
        {
            "here": lambda: kl_divergence(p[:20_000], q[:20_000]),
            "plain Python": lambda: sum(
                a * math.log(a / b) for a, b in zip(few, other, strict=True)
            ),
        },
        rounds=3,
    )
    x, y = np.random.default_rng(1).standard_normal((2, 1_000_000))
    compare(
        "two samples of 1000000",
        {
            "here, all six distances": lambda: compare_samples(x, y),
            "scipy, KS alone": (lambda: stats.ks_2samp(x, y, method="asymp")) if stats else None,
            "scipy, Wasserstein alone": (lambda: stats.wasserstein_distance(x, y))
            if stats
            else None,
        },
        rounds=3,
    )


if __name__ == "__main__":
    main()
