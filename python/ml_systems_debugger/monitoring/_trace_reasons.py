"""Why an operation on finite inputs gave something that is not finite."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ._trace_result import TensorSummary

__all__ = ["reason"]

_LIMITS = {
    "float16": 65504.0,
    "bfloat16": 3.3895313892515355e38,
    "float32": float(np.finfo(np.float32).max),
    "float64": float(np.finfo(np.float64).max),
}
_NORMS = ("layer_norm", "batch_norm", "group_norm", "rms_norm", "var", "std", "norm", "dist")


def reason(
    op: str, inputs: Sequence[TensorSummary], output: TensorSummary, numbers: Sequence[float] = ()
) -> tuple[str, str]:
    """Return the kind, ``invalid_operation`` or ``overflow``, and the reason in words.

    Decided by the mathematical domain of the operation and by what its inputs
    hold: a pole or a point outside the domain is an invalid operation, anything
    else that gives an infinity left the range of the number format.
    """
    name = op.rpartition(".")[2].removesuffix("_")
    first = inputs[0] if inputs else None
    low = first.min if first is not None else float("nan")
    zeros = first.zeros if first is not None else 0
    bottom = inputs[1] if len(inputs) > 1 else None
    least = -1.0 if name == "log1p" else 0.0
    if first is not None and name in ("log", "log2", "log10", "log1p"):
        if low < least:
            return (
                "invalid_operation",
                f"the logarithm of a value below {least:g} (down to {low:.4g})",
            )
        return "invalid_operation", f"the logarithm of 0: {max(zeros, 1)} of {first.size} inputs"
    if name in ("sqrt", "rsqrt", "special_log_ndtr") and low < 0:
        return "invalid_operation", f"the root of a negative number (down to {low:.4g})"
    if name in ("rsqrt", "reciprocal") and zeros:
        return "invalid_operation", f"1 over 0: {zeros} of {_size(first)} inputs are 0"
    if name in ("div", "true_divide", "remainder", "fmod") and bottom is not None and bottom.zeros:
        what = "0 / 0" if output.nan else "a division by 0"
        return (
            "invalid_operation",
            f"{what}: {bottom.zeros} of {bottom.size} divisors are 0",
        )
    if name in ("asin", "acos") and first is not None and first.absmax > 1:
        return "invalid_operation", f"{name} outside -1 to 1 (up to {first.absmax:.4g})"
    if name in ("atanh", "logit") and first is not None:
        return (
            "invalid_operation",
            f"{name} at the edge of its domain ({low:.4g} to {first.max:.4g})",
        )
    if name == "acosh" and low < 1:
        return "invalid_operation", f"acosh below 1 (down to {low:.4g})"
    if name == "pow" and first is not None and numbers:
        power = numbers[0]
        if power < 0 and zeros:
            return "invalid_operation", f"0 to the power {power:g}: {zeros} of {first.size} inputs"
        if not power.is_integer() and low < 0:
            return "invalid_operation", f"the power {power:g} of a negative number ({low:.4g})"
    largest = max((one.absmax for one in inputs if one.absmax == one.absmax), default=float("nan"))
    limit = _LIMITS.get(output.dtype, float("inf"))
    if output.posinf + output.neginf or largest * largest > limit:
        return (
            "overflow",
            f"the range of {output.dtype} ends at {limit:.6g}, inputs are up to {largest:.4g}",
        )
    if any(part in name for part in _NORMS) and largest == 0:
        return "invalid_operation", "a norm of zeros divides by 0"
    return "invalid_operation", f"no result for finite inputs up to {largest:.4g}"


def _size(one: TensorSummary | None) -> int:
    return 0 if one is None else one.size
