"""Parameters that never got a gradient, as the optimizer's own state shows."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from ..core import Severity
from ..core.shown import shown
from .finding import CheckpointFinding
from .table import TensorTable

__all__ = ["never_trained"]

MIN_ALIVE = 2
MIN_STEPS = 10
_WIDE = ("float32", "bfloat16", "float64")
_SECOND_MOMENT = re.compile(r"(?<![^./])(exp_avg_sq|square_avg)(?![^./])")


def never_trained(table: TensorTable) -> Iterator[CheckpointFinding]:
    """Yield a finding for each second moment of nothing but zeros.

    Adam and RMSprop keep a running mean of squared gradients for each parameter that takes part:
    it is zero only where every gradient was zero (or too small to square: of float16, which
    underflows below 2e-4, nothing is said). Told only where most other parameters have one, and
    after ten steps at least where the count of steps is saved beside it.
    """
    columns = table.columns
    usable = table.tensors.of_type(lambda kind: kind in _WIDE, np.bool_)
    usable &= columns["scanned"] & (columns["size"] > 0)
    found = [
        (index, match)
        for index, name in enumerate(table.tensors.names())
        if "_s" in name and (match := _SECOND_MOMENT.search(name)) and usable[index]
    ]
    which = np.array([index for index, _ in found], np.int64)
    if not len(which):
        return
    zero = columns["zero"][which] == columns["size"][which]
    alive = int((~zero).sum())
    if not zero.any() or alive < MIN_ALIVE or alive < len(which) / 2:
        return
    places = {name: index for index, name in enumerate(table.tensors.names())}
    for at in np.flatnonzero(zero).tolist():
        index, match = found[at]
        name = table.tensors[index].name
        counter = places.get(f"{name[: match.start()]}step{name[match.end() :]}")
        steps = None
        if counter is not None and columns["size"][counter] == 1:
            steps = float(columns["max"][counter])
            if not steps >= MIN_STEPS:
                continue
        after = "" if steps is None else f" after {steps:.0f} steps"
        yield CheckpointFinding.of(
            "never_trained", Severity.MEDIUM,
            f"its mean squared gradient is zero everywhere{after}, while {alive} other parameters "
            f"have one: the parameter {shown(name[: match.start()].rstrip('./') or name)} never "
            f"got a gradient",
            name, steps=steps, alive=alive, of=len(which),
        )  # fmt: skip
