"""Fuzz the array kernels: any bytes, dtype, shape, strides, offset and target, against the twins.

    python tests/fuzz/fuzz_arrays.py [--seconds 600] [--seed N]

Every case is made from one number, which is printed where a case fails:
`--seed N --seconds 0` runs that one alone.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from ml_systems_debugger import kernels
from ml_systems_debugger.kernels.reference import arrays as twin
from ml_systems_debugger.kernels.reference import distributions, windows

MIN_NORMAL = {
    "float64": 2.0**-1022, "float32": 2.0**-126, "float16": 2.0**-14, "bfloat16": 2.0**-126,
    "float8_e4m3fn": 2.0**-6, "float8_e5m2": 2.0**-14, "float8_e4m3fnuz": 2.0**-7,
    "float8_e5m2fnuz": 2.0**-15, "float8_e8m0fnu": 0.0, "int8": 0.0, "uint16": 0.0, "int64": 0.0,
}  # fmt: skip


def case(seed: int) -> tuple[npt.NDArray[Any], str]:
    """Return an array view and the name of its dtype."""
    rng = np.random.default_rng(seed)
    name = str(rng.choice(list(MIN_NORMAL)))
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    shape = tuple(int(n) for n in rng.integers(0, 14, rng.integers(0, 4)))
    if rng.random() < 0.2:
        shape = (int(rng.integers(0, 9000)),)
    offset = int(rng.integers(0, 65))
    count = math.prod(shape)
    raw = rng.integers(0, 256, count * dtype.itemsize + offset, np.uint8)
    if rng.random() < 0.3:  # ordinary values, now and then with a bad one
        with np.errstate(all="ignore"):
            values = np.abs(rng.normal(0, 10.0 ** rng.integers(-6, 3), count)).astype(dtype)
        raw[offset:] = values.view(np.uint8)
    x = raw[offset:].view(dtype).reshape(shape)
    steps = tuple(slice(None, None, int(rng.choice([1, 1, 2, -1, -3]))) for _ in shape)
    return x[steps].transpose(rng.permutation(len(shape))), name


def close(a: float, b: float, relative: float, absolute: float = 0.0) -> bool:
    return a == b or (a != a and b != b) or abs(a - b) <= max(relative * abs(b), absolute)


def check(x: npt.NDArray[Any], name: str) -> None:
    want = twin.tensor_stats(x, MIN_NORMAL[name])
    got = kernels.tensor_stats(x, digest=True)
    for field in ("size", "nan", "posinf", "neginf", "zero", "subnormal", "min", "max", "absmax"):
        assert close(getattr(got, field), getattr(want, field), 0.0), field
    if math.isfinite(want.l1):
        assert close(got.l1, want.l1, 2e-6), "l1"
        assert close(got.mean, want.mean, 2e-6, 2e-6 * want.l1), "mean"
    if math.isfinite(want.l2):
        assert close(got.l2, want.l2, 2e-6), "l2"
        assert close(got.std, want.std, 1e-5, 2e-6 * want.absmax), "std"
    assert kernels.first_nonfinite(x) == twin.first_nonfinite(x), "first_nonfinite"
    assert tuple(kernels.count_nonfinite(x)) == twin.count_nonfinite(x), "count_nonfinite"
    assert kernels.digest(x) == got.digest == twin.digest(x), "digest"
    assert kernels.has_nonfinite(x) == (want.nan + want.posinf + want.neginf > 0), "has_nonfinite"
    norm = kernels.l2_norm(x)
    if want.nan + want.posinf + want.neginf == 0:
        assert close(norm, want.l2, 2e-6), "l2_norm"
        assert close(kernels.max_norm(x), want.absmax if want.size else 0.0, 0.0), "max_norm"
        assert close(kernels.global_norm([x, x, x]), 3**0.5 * norm, 1e-12), "global_norm"
    else:
        assert not math.isfinite(norm), "l2_norm"
        assert not math.isfinite(kernels.global_norm([x, x])), "global_norm"


def check_series(x: npt.NDArray[Any], rng: np.random.Generator) -> None:
    """Bins and windows of the first of the same values."""
    flat = x.reshape(-1)[:200]
    with np.errstate(invalid="ignore"):  # signalling NaN
        values = flat.astype(np.float64)
    finite = values[np.isfinite(values)]
    cuts = np.unique(rng.choice(finite, rng.integers(0, 12))) if len(finite) else finite
    if len(cuts) > 1 and rng.random() < 0.5:
        with np.errstate(all="ignore"):
            cuts = np.unique(np.linspace(cuts[0], cuts[-1], int(rng.integers(2, 80))))
        cuts = cuts[np.isfinite(cuts)]
    counts = kernels.bin_counts(flat, cuts).tolist()
    assert counts == distributions.bin_counts(values.tolist(), cuts.tolist()), "bin_counts"
    window = int(rng.integers(1, 40))
    small = np.where(np.abs(values) < 1e12, values, math.nan)
    found = kernels.rolling(small, window, ("min", "max", "median"), min_count=1)
    want = windows.rolling(small.tolist(), window, 1)
    for name, series in found.items():
        assert np.array_equal(series, np.array(want[name], np.float64), equal_nan=True), name


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    end, seed = time.monotonic() + options.seconds, options.seed
    while True:
        x, name = case(seed)
        for target in kernels.available_targets():
            kernels.set_target(target)
            try:
                check(x, name)
                check_series(x, np.random.default_rng(seed))
            except AssertionError as error:
                print(f"seed {seed}, target {target}, {name} {x.shape} {x.strides}: {error}")
                return 1
        seed += 1
        if time.monotonic() >= end:
            print(f"{seed - options.seed} cases, all right")
            return 0


if __name__ == "__main__":
    sys.exit(main())
