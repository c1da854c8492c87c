"""What the exponents of a checkpoint say: values that a narrower type cannot hold."""

from __future__ import annotations

from collections.abc import Iterator

from ..core import Severity
from ._families import is_optimizer_state
from ._ranges import RangeCounts
from .finding import CheckpointFinding
from .table import TensorTable

__all__ = ["range_findings"]

MIN_VALUES = 64
_UNSCALED = ("float16", "bfloat16")
_SCALED = ("float8_e4m3fn", "float8_e5m2")
_MANY_ZERO = 0.01
_MANY_SMALL = 0.1


def range_findings(table: TensorTable) -> Iterator[CheckpointFinding]:
    """Yield a finding for each tensor and type that would lose part of its values.

    float16 and bfloat16 are used as they are: an overflow becomes Inf, which is one value too
    many; of values that are too small a hundredth that vanishes, or a tenth that loses digits, is
    told. 8-bit types are used with a scale for each tensor, so what counts is what vanishes
    under the best one: a few large values then cost all the others their digits.
    """
    for index, counts in sorted(table.ranges.items()):
        info = table.tensors[index]
        if not table.columns[index]["scanned"] or is_optimizer_state(info.name):
            continue
        for target in _UNSCALED:
            yield from _unscaled(info.name, counts, target)
        for target in _SCALED:
            share = counts.vanishing(target)
            if share > _MANY_ZERO and counts.alive >= MIN_VALUES and info.dtype not in _SCALED:
                yield CheckpointFinding.of(
                    "range", Severity.LOW,
                    f"{share:.1%} of its values that are not zero would become zero in {target} "
                    f"under the best scale for the whole tensor",
                    info.name, target=target, scaled_zero_share=share, values=counts.alive,
                )  # fmt: skip


def _unscaled(name: str, counts: RangeCounts, target: str) -> Iterator[CheckpointFinding]:
    over, small, zero = (counts.share(target, loss) for loss in ("overflow", "subnormal", "zero"))
    said = []
    severity = Severity.LOW
    if over:
        severity = Severity.MEDIUM
        said.append(f"{round(over * counts.alive)} become infinite ({over:.2%})")
    if counts.alive >= MIN_VALUES and zero > _MANY_ZERO:
        severity = Severity.MEDIUM
        said.append(f"{zero:.1%} become zero")
    if counts.alive >= MIN_VALUES and small + zero > _MANY_SMALL:
        said.append(f"{small:.1%} become subnormal and lose digits")
    if said:
        yield CheckpointFinding.of(
            "range", severity,
            f"of its {counts.alive} values that are not zero, {', '.join(said)} in {target}",
            name, target=target, overflow_share=over, subnormal_share=small, zero_share=zero,
            values=counts.alive,
        )  # fmt: skip
