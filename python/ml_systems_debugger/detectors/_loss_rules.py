"""What findings on losses and accuracies say of causes: rules as data.

Facts are the evidence keys that the detectors document; see `AttributionRule`.
Strengths are first estimates, to be calibrated on labelled runs.
"""

from __future__ import annotations

from ..core import AttributionRule, Condition, FailureMode, RootCause
from ._rule_parts import (
    AFRESH,
    AT_ONCE,
    CLIPPED,
    FIRST_STEPS,
    LATER,
    LR_CONSTANT,
    LR_JUMPED,
    NOT_CLIPPED,
    RECOVERED,
    RESTART,
)

__all__ = ["DIVERGENCE", "PLATEAU"]

EARLY_PEAK = Condition(
    "early_peak", ">=", 5.0, "the loss had risen {early_peak}-fold within the first updates"
)

# A model that is sure of itself and is given other data, or other labels, does worse than guess.
TO_CHANCE = Condition(
    "to_start", "==", True, "it went straight to where it began, the loss of guessing, and stays"
)

DIVERGENCE = (
    AttributionRule(
        code="DIV008",
        mode=FailureMode.DIVERGENT_TRAINING,
        cause=RootCause.DEAD_ACTIVATIONS,
        strength=0.6,
        hypothesis="The model gives one answer to every input since step {onset_step}: the loss "
        "went from {best} straight back to that of guessing ({last}; {start} at first).",
        when=(AT_ONCE, LATER, TO_CHANCE),
        lowers=(
            (LR_JUMPED, 0.6),
            (Condition("quiet.dead_units", "==", True, "no layer's units have died"), 0.2),
        ),
        remediation=(
            (
                "Look at the outputs of the model for different inputs, layer by layer, at step "
                "{onset_step}: units that are zero or saturated, biases that jumped."
            ),
        ),
        source="Lu et al., Dying ReLU and Initialization, 2020",
    ),
    AttributionRule(
        code="DIV001",
        mode=FailureMode.DIVERGENT_TRAINING,
        cause=RootCause.LEARNING_RATE_TOO_HIGH,
        strength=0.5,
        hypothesis="The learning rate is too high: {series} left its best level of {best} at "
        "step {onset_step} and stands at {last}.",
        when=(LATER,),
        raises=(
            (LR_JUMPED, 0.4),
            (Condition("above_start", ">", 0, "the loss is higher than at the start"), 0.15),
            (Condition("lead.exploding_gradients", ">=", 0, "gradients exploded first"), 0.2),
            (EARLY_PEAK, 0.7),
        ),
        # A step that is too large blows up over several steps; other data shows in the first.
        lowers=((RECOVERED, 0.6), (AT_ONCE, 0.3)),
        remediation=(RESTART,),
        source="Cohen et al., Gradient descent at the edge of stability, ICLR 2021",
    ),
    AttributionRule(
        code="DIV006",
        mode=FailureMode.DIVERGENT_TRAINING,
        cause=RootCause.LEARNING_RATE_TOO_HIGH,
        strength=0.75,
        hypothesis="The learning rate is too high from the first steps on: {series} began at "
        "{start}, reached {peak} at step {peak_step} and stands at {last}.",
        when=(FIRST_STEPS,),
        raises=(
            (Condition("above_start", ">", 0, "the loss is higher than at the start"), 0.2),
            (Condition("lead.exploding_gradients", ">=", 0, "gradients exploded first"), 0.2),
        ),
        lowers=((RECOVERED, 0.6),),
        remediation=(AFRESH,),
        source="Goodfellow, Bengio, Courville, Deep Learning, 2016, section 11.4.1",
    ),
    AttributionRule(
        code="DIV002",
        mode=FailureMode.DIVERGENT_TRAINING,
        cause=RootCause.LEARNING_RATE_SCHEDULE_FAULT,
        strength=0.7,
        hypothesis="The schedule raised the learning rate by a factor of {lr_jump} to "
        "{lr_at_onset}, and the loss left its path at step {onset_step}.",
        when=(LR_JUMPED, LATER),
        remediation=(
            (
                "Print the schedule from step {onset_low} to {onset_step} and compare it with what "
                "was meant; resume from a checkpoint before step {onset_low}."
            ),
        ),
        source="Loshchilov and Hutter, SGDR, ICLR 2017",
    ),
    AttributionRule(
        code="DIV003",
        mode=FailureMode.DIVERGENT_TRAINING,
        cause=RootCause.CORRUPTED_BATCH,
        strength=0.15,
        hypothesis="Data around step {onset_step} is bad: the loss rose from {best} to a peak of "
        "{peak} while the learning rate ({lr_at_onset}) stayed the same.",
        when=(LR_CONSTANT, LATER, Condition("rule", "==", "jump")),
        raises=((RECOVERED, 0.4),),
        lowers=((EARLY_PEAK, 0.3),),
        remediation=(
            (
                "Replay the batches of steps {onset_low} to {onset_step} from the checkpoint "
                "before them; check ranges, targets and padding."
            ),
        ),
        source="Chowdhery et al., PaLM, 2022, section 5.1",
    ),
    AttributionRule(
        code="DIV004",
        mode=FailureMode.DIVERGENT_TRAINING,
        cause=RootCause.MISSING_GRADIENT_CLIPPING,
        strength=0.2,
        hypothesis="Gradients that nothing bounded threw the weights off at step {onset_step}; "
        "the loss peaked at {peak} at step {peak_step}.",
        raises=(
            (NOT_CLIPPED, 0.05),
            (Condition("rule", "==", "bursts", "the loss bursts again and again"), 0.15),
            (Condition("lead.exploding_gradients", ">=", 0, "gradients exploded first"), 0.3),
        ),
        lowers=((CLIPPED, 0.1), (AT_ONCE, 0.4)),
        remediation=(
            (
                "Clip the global gradient norm at two to three times the level it has in the steps "
                "before {onset_low}."
            ),
        ),
        source="Pascanu, Mikolov, Bengio, ICML 2013",
    ),
    AttributionRule(
        code="DIV007",
        mode=FailureMode.DIVERGENT_TRAINING,
        cause=RootCause.DATA_DISTRIBUTION_CHANGE,
        strength=0.6,
        hypothesis="The data changed at step {onset_step}: the loss went from {best} to {last} "
        "with one step, before any update could have brought it there.",
        when=(AT_ONCE, LATER),
        lowers=(
            (LR_JUMPED, 0.6),
            (RECOVERED, 0.4),
            (TO_CHANCE, 0.15),
            (Condition("lead.dead_units", ">=", -10, "units died at that step"), 0.2),
        ),
        remediation=(
            (
                "Compare the inputs and labels of the batches before and after step {onset_step}: "
                "their scale, their order, and whether labels belong to inputs."
            ),
        ),
        source="Quionero-Candela et al., Dataset Shift in Machine Learning, 2009",
    ),
    AttributionRule(
        code="DIV005",
        mode=FailureMode.DIVERGENT_TRAINING,
        cause=RootCause.DATA_DISTRIBUTION_CHANGE,
        strength=0.15,
        hypothesis="The data changed at about step {onset_step}: the loss climbed from {best} to "
        "{last} and stayed, with a learning rate ({lr_at_onset}) that did not change.",
        when=(LR_CONSTANT, LATER, Condition("at_once", "!=", True)),
        lowers=(
            (EARLY_PEAK, 0.3),
            (Condition("above_start", ">", 0, "the loss is higher than at the start"), 0.3),
            (Condition("mode.exploding_gradients", "present", says="gradients exploded"), 0.3),
            (Condition("mode.parameter_runaway", "present", says="weights ran away"), 0.2),
        ),
        remediation=(
            (
                "Compare the inputs and labels before and after step {onset_step}: a new shard, a "
                "changed mixture, or a shuffle that ended."
            ),
        ),
        source="Quionero-Candela et al., Dataset Shift in Machine Learning, 2009",
    ),
)

PLATEAU = (
    AttributionRule(
        code="PLA001",
        mode=FailureMode.LOSS_PLATEAU,
        cause=RootCause.LEARNING_RATE_TOO_LOW,
        strength=0.3,
        hypothesis="The learning rate is too low to move the model: {series} began at {start} and "
        "stands at {last}.",
        raises=(
            (Condition("lr_max", "<=", 1e-6, "the learning rate never exceeds {lr_max}"), 0.6),
            (Condition("rule", "==", "flat_from_start", "the loss is flat"), 0.1),
        ),
        lowers=(
            (Condition("mode.divergent_training", "present", says="the loss blew up"), 0.05),
            (Condition("mode.exploding_gradients", "present", says="gradients exploded"), 0.1),
        ),
        remediation=(
            (
                "Run a learning-rate range test from ten times the present value upwards for a few "
                "hundred steps and take the largest at which the loss falls."
            ),
        ),
        source="Smith, WACV 2017",
    ),
    AttributionRule(
        code="PLA002",
        mode=FailureMode.LOSS_PLATEAU,
        cause=RootCause.LEARNING_RATE_TOO_HIGH,
        strength=0.25,
        hypothesis="The learning rate threw the model off: it predicts no better than at the "
        "start ({last} against {start}).",
        when=(Condition("rule", "==", "accuracy_at_start"),),
        raises=(
            (Condition("mode.divergent_training", "present", says="the loss blew up"), 0.6),
            (Condition("mode.exploding_gradients", "present", says="gradients exploded"), 0.5),
            (Condition("was_better", "==", True, "it had been better before"), 0.2),
            (Condition("constant", "==", True, "the prediction is constant"), 0.15),
        ),
        remediation=(
            (
                "Start again (the weights hold nothing) with a tenth of the learning rate and a "
                "warm-up."
            ),
        ),
        source="Goodfellow, Bengio, Courville, Deep Learning, 2016, section 11.4.1",
    ),
    AttributionRule(
        code="PLA003",
        mode=FailureMode.LOSS_PLATEAU,
        cause=RootCause.PARAMETERS_NOT_UPDATED,
        strength=0.3,
        hypothesis="The optimiser does not change the model: {series} is the same at the end "
        "({last}) as at the start ({start}).",
        when=(Condition("was_better", "!=", True),),
        raises=(
            (Condition("lr_max", "==", 0, "the learning rate is zero"), 0.6),
            (Condition("mode.frozen_parameters", "present", says="parameters are frozen"), 0.6),
            (Condition("constant", "==", True, "the prediction is constant"), 0.1),
        ),
        lowers=((Condition("mode.divergent_training", "present", says="the loss moved"), 0.1),),
        remediation=(
            (
                "Check that the optimiser holds these parameters, that step() runs, and that a "
                "parameter's checksum changes from one step to the next."
            ),
        ),
        source="TrainCheck, OSDI 2025: a step must change the parameters",
    ),
    AttributionRule(
        code="PLA004",
        mode=FailureMode.LOSS_PLATEAU,
        cause=RootCause.DEAD_ACTIVATIONS,
        strength=0.2,
        hypothesis="The network passes nothing on: its accuracy is that of a constant prediction "
        "({last}).",
        when=(Condition("rule", "==", "accuracy_at_start"), Condition("constant", "==", True)),
        raises=(
            (Condition("mode.vanishing_gradients", "present", says="gradients vanished"), 0.4),
            (Condition("mode.divergent_training", "present", says="after a blow-up"), 0.2),
        ),
        remediation=(
            "Log the share of zero activations per layer in the first steps after {onset_step}.",
        ),
        source="Maas, Hannun, Ng, ICML 2013",
    ),
    AttributionRule(
        code="PLA005",
        mode=FailureMode.LOSS_PLATEAU,
        cause=RootCause.CORRUPTED_LABELS,
        strength=0.15,
        hypothesis="Inputs and labels do not belong together: the accuracy stays at {last}, its "
        "level before training.",
        when=(Condition("rule", "==", "accuracy_at_start"), Condition("was_better", "!=", True)),
        lowers=(
            (Condition("mode.divergent_training", "present", says="the loss blew up"), 0.1),
            (Condition("constant", "==", True, "the prediction is constant"), 0.5),
        ),
        remediation=(
            (
                "Overfit one batch of ten examples: where that works, check the order of inputs "
                "and labels behind the loader."
            ),
        ),
        source="Zhang et al., Understanding deep learning requires rethinking generalization, 2017",
    ),
    AttributionRule(
        code="PLA006",
        mode=FailureMode.LOSS_PLATEAU,
        cause=RootCause.SATURATING_ACTIVATIONS,
        strength=0.1,
        hypothesis="The layers near the input get no gradient, and {series} stays at {last}.",
        raises=((Condition("mode.vanishing_gradients", "present", says="gradients vanish"), 0.5),),
        remediation=("Treat the vanishing gradients first; the plateau follows from them.",),
        source="Glorot and Bengio, AISTATS 2010",
    ),
)
