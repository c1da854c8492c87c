"""Conditions and advice that several rules of this package share."""

from __future__ import annotations

from ..core import Condition

LR_JUMPED = Condition(
    "lr_jump", ">=", 1.5, "the learning rate rose by a factor of {lr_jump} just before"
)
LR_CONSTANT = Condition("lr_is_constant", "==", True, "the learning rate did not change")
FIRST_STEPS = Condition("onset_step", "<=", 10, "it began within the first ten steps")
LATER = Condition("onset_step", ">", 10, "it began after a good start")
AT_ONCE = Condition("at_once", "==", True, "it came with one step")
RECOVERED = Condition("recovered", "==", True, "it recovered by itself")
CLIPPED = Condition("context.gradient_clipping", "present", says="gradients are clipped")
NOT_CLIPPED = Condition("context.gradient_clipping", "absent", says="no clipping is configured")

RESTART = (
    "Restart from a checkpoint before step {onset_low} with the learning rate at a third of "
    "what it was at step {onset_step}, and a warm-up over the first few hundred steps."
)
AFRESH = (
    "Start afresh with a tenth of the learning rate and a linear warm-up over the first few "
    "hundred steps; nothing in these weights is worth keeping."
)
CLIP = (
    "Clip the global gradient norm at two to three times its normal level (here about "
    "{baseline}), and log how often it clips."
)
