"""Updates that are too small for the number format of the parameters."""

# ruff: noqa: ARG002 - the hooks of `LayerDetector` have the same arguments everywhere
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..core import (
    AttributionRule,
    Condition,
    FailureMode,
    Finding,
    FoldState,
    RootCause,
    SeriesKey,
    Severity,
    check_count,
    detectors,
)
from ..core.sensitivity import COUNT, scales
from ._latency import SLOW
from ._layers import LayerDetector, Rows
from ._streaks import Turn
from ._trail import Floats, evidence

__all__ = ["PrecisionLossDetector"]

_SOURCE = "Zamirai et al., Revisiting BFloat16 Training, 2021"
_RULES = (
    AttributionRule(
        "PRC001", FailureMode.PRECISION_LOSS, RootCause.LOW_PRECISION_UPDATE_LOSS, 0.75,
        "Updates round to nothing since step {onset_step} in {standing} of {layers} layers: they "
        "are smaller than the resolution of the parameters.",
        lowers=((Condition("lr", "<=", 1e-7, "the learning rate is {lr}"), 0.5),
                (Condition("lead.dead_units", ">=", 0, "units had died before"), 0.2),
                (Condition("lead.vanishing_gradients", ">=", 0, "gradients had vanished"), 0.4)),
        remediation=("Keep master weights in float32, or round stochastically.",),
        source=_SOURCE,
    ),
    AttributionRule(
        "PRC002", FailureMode.PRECISION_LOSS, RootCause.LEARNING_RATE_TOO_LOW, 0.3,
        "The learning rate ({lr}) is too low for anything to change.",
        when=(Condition("lr", "<=", 1e-4, "the learning rate is {lr}"),),
        raises=((Condition("lr", "<=", 1e-7, "nothing moves at such a rate"), 0.6),),
        remediation=("Check the schedule; a rate of {lr} moves nothing in 16 bits.",),
        source=_SOURCE,
    ),
)  # fmt: skip

_RESOLUTION = 2.0**-24  # of float32: a smaller movement is none even there
# Where half of the updates of a float32 parameter round to nothing, those that do not are of one
# spacing (2^-23) or little more. Sixteen spacings can only be those of a coarser format.
_COARSE = 2.0**-19
_LOST = 0.5  # of the elements that have a gradient: most updates come to nothing


@detectors.register("precision_loss")
@dataclass(frozen=True)
class PrecisionLossDetector(LayerDetector):
    """Updates below the resolution of the parameters: training goes on and moves nothing.

    What it detects
    ---------------
    ``update_ratio/<layer>`` that falls below what the parameters can hold, in
    most layers at once, while the learning rate and the gradients are not zero;
    and ``update_zero_fraction/<layer>`` (the share of the elements with a
    gradient that a step leaves exactly as they were) above a half.

    Why it matters
    --------------
    In bfloat16 a parameter of 1 cannot change by less than 0.004: an update
    that is smaller is lost, the loss stops falling, and nothing says why.

    How it decides
    --------------
    An update ratio below 2^-24, which is no movement in any format that is
    trained in, in `persistence` measurements running; or most elements unchanged
    in as many, while those that do change move the layer by more than 2^-19 of its
    norm, sixteen spacings of float32: there the format is coarser, and rounds updates
    away. Tiny learning rates in float32 leave elements unchanged too, but move the
    others by little more than one spacing, and are no such thing. Where at
    least half of the layers show it, it is one finding for the run (high where all
    do); fewer layers are `frozen_parameters`' business. A learning rate of zero, as at the end of a
    schedule, is no fault.

    Parameters
    ----------
    persistence : int
        Measurements.

    Evidence
    --------
    ``standing``, ``layers``, ``lr``, ``unchanged`` (the largest share, where it is
    logged), ``onset_step``, ``onset_low``, ``onset_high``.

    Examples
    --------
    >>> from ml_systems_debugger.core import Signal
    >>> run = [Signal(f"update_ratio/{name}", 1e-3 if i < 50 else 0.0, step=i)
    ...        for i in range(90) for name in "abcd"]
    >>> run += [Signal("lr", 1e-4, step=i) for i in range(90)]
    >>> found = PrecisionLossDetector().detect(run)
    >>> found.severity.value, found.onset_step
    ('high', 50)
    """

    failure_mode = FailureMode.PRECISION_LOSS
    required_signals = ("update_ratio", "update_zero_fraction")
    attribution_rules = _RULES
    latency = SLOW
    sensitivity_scales = scales(persistence=COUNT.within(2))
    followed = ("update_ratio", "update_zero_fraction")
    witnesses = ("lr", "grad_norm", "skipped_step")

    persistence: int = 8

    def __post_init__(self) -> None:
        check_count(2, persistence=self.persistence)

    def bad(
        self, state: FoldState, row: int, key: SeriesKey, values: Floats
    ) -> npt.NDArray[np.bool_]:
        """Return which updates are lost."""
        return _lost(key, values)

    def bad_many(
        self, state: FoldState, rows: Rows, keys: Sequence[SeriesKey], values: Floats
    ) -> npt.NDArray[np.bool_]:
        """Return which updates [n, series] are lost."""
        return _lost(keys[0], values)

    def opened(self, state: FoldState, row: int, key: SeriesKey, turn: Turn) -> Finding:
        """Return the finding of one layer; whether it stands is known at the end."""
        return self.occurrence(
            key, turn, 0.6, f"updates of {key.layer} have been lost since step {turn.first}"
        )

    def weigh(self, state: FoldState, findings: list[Finding]) -> list[Finding]:
        """Return one finding where most layers stand still though they should move."""
        rows = [(r, k) for r, k in self.rows(state, *self.followed) if k.layer is not None]
        moved = {k[1:]: float(state["value"][r]) for r, k in rows if k.name == "update_ratio"}
        unchanged = {
            str(key): float(state["value"][row])
            for row, key in rows
            # Without a movement to look at, a share alone does not tell formats apart.
            if key.name == "update_zero_fraction" and moved.get(key[1:], 0.0) > _COARSE
        }
        going = [
            f for f in findings
            if f.end_step is None
            and (_is_movement(f) or str(f.evidence["series"]) in unchanged)
        ]  # fmt: skip
        rates = [float(state["value"][row]) for row, _ in self.rows(state, "lr")]
        norms = [float(state["value"][r]) for r, k in self.rows(state, "grad_norm") if not k.layer]
        left_out = any(state["value"][row] > 0 for row, _ in self.rows(state, "skipped_step"))
        broken = bool(norms) and not np.isfinite(norms).all()
        rate_gone = bool(rates) and max(rates) == 0.0
        no_gradient = bool(norms) and max(norms) == 0.0
        layers = {key.layer for _, key in rows}
        standing = {f.layer for f in going}
        # Steps that are left out move nothing, and are told by others.
        if not going or rate_gone or no_gradient or left_out or broken:
            return []
        if len(standing) < max(2, len(layers) / 2):
            return []
        first = min(going, key=lambda f: (f.onset_step or 0, str(f.layer)))
        every = len(standing) == len(layers)
        # Without a learning rate to look at, the end of a schedule looks the same.
        severity = Severity.HIGH if every and rates else Severity.MEDIUM
        told = {
            **first.evidence, "standing": len(standing), "layers": len(layers),
            "lr": rates[0] if rates else None,
            "unchanged": max(unchanged.values(), default=None),
        }  # fmt: skip
        return [
            replace(
                first, severity=severity, confidence=0.9 if rates else 0.6, layer=None,
                evidence=evidence(**told),
                message=f"updates have been lost in {len(standing)} of {len(layers)} layers since "
                f"step {first.onset_step}, though the learning rate is not zero",
            )
        ]  # fmt: skip


def _lost(key: SeriesKey, values: Floats) -> npt.NDArray[np.bool_]:
    bad = values > _LOST if key.name == "update_zero_fraction" else values < _RESOLUTION
    return np.asarray(bad, np.bool_)


def _is_movement(finding: Finding) -> bool:
    return str(finding.evidence["series"]).startswith("update_ratio")
