"""How much a diagnosis rests on: three curves from outside, or what is inside the model as well."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..core import DetectionResult, Finding, canonical

__all__ = ["is_narrow", "looked_inside"]

_CURVES = frozenset({"loss", "lr", "grad_norm"})
_INSIDE = frozenset({
    "param_norm", "update_ratio", "update_zero_fraction", "carried_gradient",
    "activation_zero_fraction", "activation_std", "input_std", "input_absmax",
    "loss_scale", "skipped_step", "gradient", "parameter", "activation", "param_digest",
    "grad_digest", "feature",
})  # fmt: skip


def looked_inside(detections: Iterable[DetectionResult]) -> bool:
    """Return whether any check read what only the inside of the model or its inputs tell."""
    return any(not _INSIDE.isdisjoint(result.judged) for result in detections)


def is_narrow(findings: Sequence[Finding]) -> bool:
    """Return whether all findings are of the loss, the learning rate and the gradient norm."""
    return all(_quantity(finding) in _CURVES for finding in findings)


def _quantity(finding: Finding) -> str | None:
    told = finding.evidence.get("quantity", finding.evidence.get("series"))
    return canonical(told.split("[")[0]).name if isinstance(told, str) else None
