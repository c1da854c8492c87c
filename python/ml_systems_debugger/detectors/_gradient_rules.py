"""What findings on gradient norms say of causes: rules as data.

Facts are the evidence keys that the detectors document; see `AttributionRule`.
Strengths are first estimates, to be calibrated on labelled runs.
"""

from __future__ import annotations

from ..core import AttributionRule, Condition, FailureMode, RootCause
from ._rule_parts import (
    AFRESH,
    AT_ONCE,
    CLIP,
    CLIPPED,
    FIRST_STEPS,
    LATER,
    LR_CONSTANT,
    LR_JUMPED,
    NOT_CLIPPED,
    RECOVERED,
    RESTART,
)

SUMMED = Condition("growth", "==", "linear", "it grows as a sum of gradients does")

__all__ = ["EXPLOSION", "VANISHING"]

EXPLOSION = (
    AttributionRule(
        code="EXP001",
        mode=FailureMode.EXPLODING_GRADIENTS,
        cause=RootCause.LEARNING_RATE_TOO_HIGH,
        strength=0.45,
        hypothesis="The learning rate is too high: {series} left its level of {baseline} at step "
        "{onset_step} and reached {ratio} times as much.",
        when=(LATER,),
        raises=(
            (LR_JUMPED, 0.5),
            (Condition("loss_suffers", "==", True, "the loss rises with it"), 0.2),
            (Condition("mode.divergent_training", "present", says="the loss diverges"), 0.2),
        ),
        lowers=(
            (RECOVERED, 0.5),
            (AT_ONCE, 0.2),
            (SUMMED, 0.3),
            (Condition("loss_suffers", "==", False, "the loss does not suffer"), 0.4),
        ),
        remediation=(RESTART, CLIP),
        source="Goodfellow, Bengio, Courville, Deep Learning, 2016, section 8.2.4",
    ),
    AttributionRule(
        code="EXP007",
        mode=FailureMode.EXPLODING_GRADIENTS,
        cause=RootCause.LEARNING_RATE_TOO_HIGH,
        strength=0.6,
        hypothesis="The learning rate is too high from the first steps on: {series} rose {ratio} "
        "times at step {onset_step}.",
        when=(FIRST_STEPS,),
        raises=(
            (Condition("loss_suffers", "==", True, "the loss rises with it"), 0.2),
            (Condition("mode.divergent_training", "present", says="the loss diverges"), 0.2),
        ),
        lowers=((RECOVERED, 0.5),),
        remediation=(AFRESH, CLIP),
        source="Goodfellow, Bengio, Courville, Deep Learning, 2016, section 11.4.1",
    ),
    AttributionRule(
        code="EXP002",
        mode=FailureMode.EXPLODING_GRADIENTS,
        cause=RootCause.LEARNING_RATE_SCHEDULE_FAULT,
        strength=0.7,
        hypothesis="The schedule raised the learning rate by a factor of {lr_jump} to "
        "{lr_at_onset} just before the gradients exploded at step {onset_step}.",
        when=(LR_JUMPED,),
        remediation=(
            (
                "Print the schedule around step {onset_low} to {onset_step}: a wrong unit (epochs "
                "for steps), a restart of the schedule, or a missing warm-up raises it there."
            ),
            RESTART,
        ),
        source="Loshchilov and Hutter, SGDR, ICLR 2017: restarts raise the rate on purpose",
    ),
    AttributionRule(
        code="EXP003",
        mode=FailureMode.EXPLODING_GRADIENTS,
        cause=RootCause.MISSING_GRADIENT_CLIPPING,
        strength=0.3,
        hypothesis="Nothing bounded the gradients: their norm reached {peak} at step {peak_step}, "
        "from a normal level of {baseline}.",
        raises=((NOT_CLIPPED, 0.1), (RECOVERED, 0.15), (LR_CONSTANT, 0.1)),
        lowers=((CLIPPED, 0.1), (AT_ONCE, 0.5), (SUMMED, 0.3)),
        remediation=(CLIP,),
        source="Pascanu, Mikolov, Bengio, ICML 2013",
    ),
    AttributionRule(
        code="EXP004",
        mode=FailureMode.EXPLODING_GRADIENTS,
        cause=RootCause.POOR_INITIALIZATION,
        strength=0.25,
        hypothesis="The weights began badly scaled: {series} exploded at step {onset_step}, "
        "before anything was learnt.",
        when=(FIRST_STEPS,),
        lowers=((LR_JUMPED, 0.4),),
        remediation=(
            (
                "Compare the standard deviation of each layer's weights at step 0 with "
                "sqrt(2 / fan_in) (He) or sqrt(1 / fan_in) (LeCun)."
            ),
        ),
        source="He et al., ICCV 2015",
    ),
    AttributionRule(
        code="EXP005",
        mode=FailureMode.EXPLODING_GRADIENTS,
        cause=RootCause.CORRUPTED_BATCH,
        strength=0.2,
        hypothesis="One or a few batches around step {onset_step} hold values out of range: "
        "the norm rose to {ratio} times its level in one step while the learning rate "
        "({lr_at_onset}) did not change.",
        when=(LR_CONSTANT, LATER),
        raises=((RECOVERED, 0.3),),
        remediation=(
            (
                "Replay the batches of steps {onset_low} to {onset_step} and look at the range of "
                "their inputs and targets; skip them once and continue."
            ),
        ),
        source="Chowdhery et al., PaLM, 2022, section 5.1: batches around a spike are skipped",
    ),
    AttributionRule(
        code="EXP008",
        mode=FailureMode.EXPLODING_GRADIENTS,
        cause=RootCause.DATA_DISTRIBUTION_CHANGE,
        strength=0.5,
        hypothesis="The data changed at step {onset_step}: {series} rose {ratio} times with one "
        "step.",
        when=(AT_ONCE, LATER),
        lowers=((LR_JUMPED, 0.5),),
        remediation=(
            (
                "Compare the inputs of the batches before and after step {onset_step}: is a scaler "
                "left out, or is another source read?"
            ),
        ),
        source="Quionero-Candela et al., Dataset Shift in Machine Learning, 2009",
    ),
    AttributionRule(
        code="EXP009",
        mode=FailureMode.EXPLODING_GRADIENTS,
        cause=RootCause.GRADIENTS_NOT_ZEROED,
        strength=0.7,
        hypothesis="Gradients are added up over steps: {series} grows as a sum does from step "
        "{onset_step} on.",
        when=(SUMMED, LATER),
        lowers=((LR_JUMPED, 0.3), (RECOVERED, 0.3)),
        remediation=(
            (
                "Call optimizer.zero_grad() before every backward pass; look at what was changed "
                "at step {onset_step}, such as the condition for accumulation."
            ),
        ),
        source="PyTorch: backward() adds to .grad, and zero_grad() sets it to zero",
    ),
    AttributionRule(
        code="EXP006",
        mode=FailureMode.EXPLODING_GRADIENTS,
        cause=RootCause.NUMERICAL_OVERFLOW,
        strength=0.35,
        hypothesis="The gradients grew {ratio} times from step {onset_step} on until they left "
        "the range of their type at step {first_non_finite_step}.",
        when=(Condition("rule", "==", "growth_then_non_finite"),),
        remediation=(
            (
                "The overflow is the end of the growth, not its cause: mend what began at step "
                "{onset_step} first."
            ),
            CLIP,
        ),
        source="Micikevicius et al., Mixed Precision Training, ICLR 2018",
    ),
)

VANISHING = (
    AttributionRule(
        code="VAN001",
        mode=FailureMode.VANISHING_GRADIENTS,
        cause=RootCause.SATURATING_ACTIVATIONS,
        strength=0.4,
        hypothesis="Saturating activations swallow the gradient: {series} is at {last}, from a "
        "normal level of {baseline}.",
        raises=(
            (Condition("rule", "==", "layers", "norms fade towards the input"), 0.4),
            (
                Condition("context.activation", "in", ("sigmoid", "tanh", "hard_sigmoid")),
                0.4,
            ),
        ),
        lowers=((Condition("zeros", ">", 0, "the gradients are exactly zero"), 0.3),),
        remediation=(
            (
                "Use a rectifier (ReLU, GELU) or add normalisation and skip connections around the "
                "layers named here; initialise them by Glorot's rule where tanh must stay."
            ),
        ),
        source="Glorot and Bengio, AISTATS 2010",
    ),
    AttributionRule(
        code="VAN002",
        mode=FailureMode.VANISHING_GRADIENTS,
        cause=RootCause.DEAD_ACTIVATIONS,
        strength=0.3,
        hypothesis="Units died at about step {onset_step}: the norm of {series} fell from "
        "{baseline} to {last} and stayed there.",
        when=(Condition("rule", "==", "fading"),),
        raises=(
            (Condition("zeros", ">", 0, "the gradients are exactly zero"), 0.3),
            (Condition("mode.divergent_training", "present", says="after a blow-up"), 0.3),
            (Condition("mode.exploding_gradients", "present", says="after an explosion"), 0.3),
        ),
        remediation=(
            (
                "Log the share of zero activations per layer at step {onset_step}; lower the "
                "learning rate, or use leaky rectifiers."
            ),
        ),
        source="Maas, Hannun, Ng, ICML 2013",
    ),
    AttributionRule(
        code="VAN003",
        mode=FailureMode.VANISHING_GRADIENTS,
        cause=RootCause.POOR_INITIALIZATION,
        strength=0.25,
        hypothesis="The weights began too small: {series} has a norm of {last} where the layers "
        "near the output have {baseline}.",
        when=(Condition("rule", "==", "layers"),),
        remediation=(
            (
                "Initialise with a standard deviation of sqrt(2 / fan_in) for rectifiers, "
                "sqrt(1 / fan_in) else, and compare the norms at step {onset_step} again."
            ),
        ),
        source="He et al., ICCV 2015",
    ),
    AttributionRule(
        code="VAN004",
        mode=FailureMode.VANISHING_GRADIENTS,
        cause=RootCause.PARAMETERS_NOT_UPDATED,
        strength=0.25,
        hypothesis="The gradient of {series} is exactly zero from step {onset_step} on: the loss "
        "is detached from these parameters.",
        when=(Condition("zeros", ">", 0),),
        remediation=(
            (
                "Look for detach(), no_grad, stop_gradient or an argmax between these parameters "
                "and the loss, and for a change of requires_grad at step {onset_step}."
            ),
        ),
        source="TrainCheck, OSDI 2025: a step must change the parameters",
    ),
)
