"""Values that a logger may have put in the place of others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..core import Series
from ..kernels import has_nonfinite

__all__ = ["hidden_losses"]


def hidden_losses(series: Sequence[Series]) -> str:
    """Say where a loss of exactly zero stands beside a gradient norm that is not finite.

    Hugging Face's Trainer replaces a loss that is not finite unless its
    ``logging_nan_inf_filter`` is turned off; the gradient norm tells. Returns
    "" where nothing of the kind is seen.
    """
    norms = [s for s in series if s.name == "grad_norm" and s.key.layer is None]
    for norm in norms:
        if norm.values.dtype != np.float64 or not has_nonfinite(norm.values):
            continue
        wild = norm.steps[~np.isfinite(norm.values)]
        for loss in series:
            same = loss.key._replace(name="grad_norm", split=norm.key.split) == norm.key
            if loss.name != "loss" or loss.key.held_out or not same:
                continue
            both = np.intersect1d(loss.steps[loss.values == 0.0], wild)
            if len(both):
                return (
                    f"loss 0.0 beside a gradient norm that is not finite at {len(both)} steps, "
                    f"first at step {both[0]}: the logger hides losses that are not finite"
                )
    return ""
