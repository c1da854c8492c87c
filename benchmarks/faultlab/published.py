"""A few published rules, as their sources state them, for comparison on the same runs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def olmo_core(loss: Floats, grad_norm: Floats) -> bool:
    """Robust z of loss or gradient norm above 6 over 128 steps, after 64."""
    for x in (loss, grad_norm):
        for at in range(64, len(x)):
            window = x[max(0, at - 128) : at]
            middle = np.median(window)
            spread = np.median(np.abs(window - middle)) * 1.4826
            if not np.isfinite(x[at]) or (spread > 0 and (x[at] - middle) / spread > 6):
                return True
    return False


def megatron(loss: Floats, _: Floats) -> bool:
    """Ten times the maximum of the last 100 losses."""
    return any(
        not np.isfinite(loss[at]) or loss[at] > 10 * loss[max(0, at - 100) : at].max()
        for at in range(1, len(loss))
    )


def deep_checker(loss: Floats, _: Floats) -> bool:
    """A loss that is not finite or reaches twice its minimum (TheDeepChecker)."""
    if not np.isfinite(loss).all():
        return True
    return bool((loss[1:] >= 2 * np.minimum.accumulate(loss)[:-1]).any())


def sagemaker(loss: Floats, _: Floats) -> bool:
    """LossNotDecreasing: no decrease over ten steps."""
    return any(
        not np.isfinite(loss[at]) or loss[at] >= loss[at - 10] for at in range(10, len(loss), 10)
    )


RULES: dict[str, Callable[[Floats, Floats], bool]] = {
    "OLMo-core z > 6": olmo_core,
    "Megatron-LM 10x": megatron,
    "TheDeepChecker 2x": deep_checker,
    "SageMaker LossNotDecreasing": sagemaker,
}
