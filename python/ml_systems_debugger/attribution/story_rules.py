"""Rules that read the order of several failure modes: one story, told from its beginning.

Each reads a late finding and asks what came before it (``lead.<mode>`` is by
how many steps), so it speaks for a cause that no single finding shows.
"""

from __future__ import annotations

from ..core import AttributionRule, Condition, FailureMode, RootCause

__all__ = ["STORY_RULES"]

_M = FailureMode
_C = RootCause


def _beside(mode: FailureMode, says: str) -> Condition:
    return Condition(f"story.has.{mode.value}", "==", True, says)


def _before(mode: FailureMode, says: str) -> Condition:
    return Condition(f"lead.{mode.value}", ">=", 0, says)


_EXPLODED = _before(_M.EXPLODING_GRADIENTS, "gradients exploded first")
_DIVERGED = _before(_M.DIVERGENT_TRAINING, "the loss diverged first")
_SPIKED = _before(_M.LOSS_SPIKE, "the loss spiked first")
_OVERFLOWED = _before(_M.INF_DETECTED, "infinities came first")
_UNSTABLE = _before(_M.LR_INSTABILITY, "the learning rate was unstable first")
_JUMPED = Condition(
    "story.lr_jump", ">=", 1.5, "the learning rate rose by a factor of {story.lr_jump} just before"
)
_STEADY = Condition("story.lr_is_constant", "==", True, "the learning rate did not change")
_RESTARTED = Condition("story.after_restart", "==", True, "it began right after a restart")
_CALM = Condition("quiet.exploding_gradients", "==", True, "the gradients stayed as they were")
_RAN_AWAY = Condition("story.has.parameter_runaway", "==", True, "the weights of a layer ran away")
_LATE = Condition("onset_step", ">", 10, "training went well at first")
_GREW = Condition("growth_before", ">=", 4.0, "values had grown {growth_before}-fold just before")
_SCALED = Condition("loss_scaling", "==", True, "the loss is scaled, as in float16 training")
_CLIPPED = Condition("context.gradient_clipping", "present", says="gradients are clipped")
_TOLD = "In order: {story.told}."


def _rule(
    code: str,
    mode: FailureMode,
    cause: RootCause,
    strength: float,
    hypothesis: str,
    when: tuple[Condition, ...],
    *remediation: str,
    raises: tuple[tuple[Condition, float], ...] = (),
    lowers: tuple[tuple[Condition, float], ...] = (),
    source: str = "",
) -> AttributionRule:
    return AttributionRule(
        code, mode, cause, strength, f"{hypothesis} {_TOLD}", when, raises, lowers, remediation,
        source,
    )  # fmt: skip


def _ran_away() -> list[AttributionRule]:
    """NaN or infinities at the end of an explosion, a divergence or growth that nobody else saw."""
    made = []
    for code, mode in (("STO01", _M.NAN_DETECTED), ("STO02", _M.INF_DETECTED)):
        for part, before in (("1", _EXPLODED), ("2", _DIVERGED)):
            made.append(_rule(
                f"{code}{part}", mode, _C.LEARNING_RATE_TOO_HIGH, 0.4,
                "Training ran away until values left the range of numbers: the learning rate is "
                "too high.", (before,),
                "Mend what came first; the values that are not finite follow from it.",
                raises=((_UNSTABLE, 0.2),),
                lowers=((_RESTARTED, 0.3),),
                source="Goodfellow, Bengio, Courville, Deep Learning, 2016, section 8.2.4",
            ))  # fmt: skip
            made.append(_rule(
                f"{code}{part}J", mode, _C.LEARNING_RATE_SCHEDULE_FAULT, 0.6,
                "The schedule raised the learning rate by a factor of {story.lr_jump}, and "
                "training ran away.", (before, _JUMPED),
                "Print the schedule around step {try.resume_before}; resume from a checkpoint "
                "before it.",
                source="Loshchilov and Hutter, SGDR, ICLR 2017",
            ))  # fmt: skip
        made.append(AttributionRule(
            f"{code}3", mode, _C.LEARNING_RATE_TOO_HIGH, 0.6,
            "The learning rate is too high: values had grown {growth_before}-fold before they left "
            "the range of numbers at step {onset_step}.", (_GREW,),
            lowers=((_SCALED, 0.3), (_RESTARTED, 0.3)),
            remediation=(
                "Restart with a tenth of the learning rate, from before step {onset_step}.",
            ),
            source="Goodfellow, Bengio, Courville, Deep Learning, 2016, section 8.2.4",
        ))  # fmt: skip
        made.append(AttributionRule(
            f"{code}4", mode, _C.LEARNING_RATE_TOO_HIGH, 0.35,
            "The learning rate is too high: the first few updates were enough to leave the range "
            "of numbers at step {onset_step}.",
            (Condition("onset_step", "<=", 10, "it began within the first ten steps"),
             Condition("from_the_start", "==", False, "the model was sound before its first "
                                                      "updates")),
            lowers=((_SCALED, 0.3),),
            remediation=("Start again with a tenth of the learning rate and a warm-up.",),
            source="Goodfellow, Bengio, Courville, Deep Learning, 2016, section 11.4.1",
        ))  # fmt: skip
    return made


STORY_RULES: tuple[AttributionRule, ...] = (
    *_ran_away(),
    _rule("STO031", _M.NAN_DETECTED, _C.NUMERICAL_OVERFLOW, 0.4,
          "Values overflowed before they became NaN.", (_OVERFLOWED,),
          "Find what overflows first; inf - inf and 0 * inf are NaN.",
          source="IEEE 754-2019, section 7.2"),
    _rule("STO041", _M.EXPLODING_GRADIENTS, _C.LEARNING_RATE_SCHEDULE_FAULT, 0.5,
          "The learning rate changed abruptly, and the gradients exploded.", (_UNSTABLE,)),
    _rule("STO042", _M.DIVERGENT_TRAINING, _C.LEARNING_RATE_SCHEDULE_FAULT, 0.4,
          "The learning rate changed abruptly, and the loss left its path.", (_UNSTABLE,)),
    _rule("STO051", _M.DIVERGENT_TRAINING, _C.CORRUPTED_BATCH, 0.3,
          "A bad batch threw the model off, and it did not come back.", (_SPIKED, _STEADY),
          "Resume from a checkpoint before step {try.resume_before} and skip the batches around "
          "it.", lowers=((_RESTARTED, 0.3),),
          source="Chowdhery et al., PaLM, 2022, section 5.1"),
    _rule("STO052", _M.DIVERGENT_TRAINING, _C.LEARNING_RATE_TOO_HIGH, 0.3,
          "The loss spiked, and then it diverged: training is at the edge of stability.",
          (_SPIKED,), raises=((_JUMPED, 0.3),), lowers=((_RESTARTED, 0.3),),
          source="Cohen et al., Gradient descent at the edge of stability, ICLR 2021"),
    _rule("STO053", _M.DIVERGENT_TRAINING, _C.MISSING_GRADIENT_CLIPPING, 0.25,
          "Exploded gradients that nothing bounded threw the model off.", (_EXPLODED,),
          lowers=((_CLIPPED, 0.1),), source="Pascanu, Mikolov, Bengio, ICML 2013"),
    *(_rule(f"STO06{at}", mode, _C.OPTIMIZER_STATE_LOST, 0.5,
            "The run was resumed without the state of its optimizer.", (condition,))
      for at, mode, condition in (
          ("1", _M.DIVERGENT_TRAINING, _RESTARTED), ("2", _M.EXPLODING_GRADIENTS, _RESTARTED),
          ("3", _M.LOSS_SPIKE, Condition("resumed_within", "<=", 100,
                                         "the run was resumed {resumed_within} steps before")),
      )),
    _rule("STO071", _M.PARAMETER_DESYNC, _C.MISSED_GRADIENT_SYNCHRONIZATION, 0.5,
          "Gradients parted first, and so did the parameters.",
          (_before(_M.GRADIENT_DESYNC, "gradients parted first"),)),
    _rule("STO072", _M.GRADIENT_DESYNC, _C.REPLICA_INITIALIZATION_MISMATCH, 0.4,
          "The replicas had different parameters before their gradients parted.",
          (_before(_M.PARAMETER_DESYNC, "parameters parted first"),
           Condition("mode.parameter_desynchronization", "in", (0, 1, "the start"),
                     "from the start"))),
    _rule("STO073", _M.DIVERGENT_TRAINING, _C.MISSED_GRADIENT_SYNCHRONIZATION, 0.5,
          "The replicas parted, and the loss followed.",
          (_before(_M.GRADIENT_DESYNC, "gradients parted between replicas first"),)),
    _rule("STO074", _M.DIVERGENT_TRAINING, _C.REPLICA_DATA_CORRUPTION, 0.3,
          "One replica computed something else, and the loss followed.",
          (_before(_M.PARAMETER_DESYNC, "parameters parted between replicas first"),),
          source="Dixit et al., Silent data corruptions at scale, 2021"),
    _rule("STO075", _M.NAN_DETECTED, _C.REPLICA_DATA_CORRUPTION, 0.35,
          "One replica parted from the others before values became NaN.",
          (_before(_M.GRADIENT_DESYNC, "gradients parted between replicas first"),),
          source="Dixit et al., Silent data corruptions at scale, 2021"),
    _rule("STO076", _M.GRADIENT_DESYNC, _C.LOST_WORKER, 0.5,
          "A worker failed, and the gradients of the others parted from it.",
          (_before(_M.PARTIAL_WORKER_FAILURE, "a worker failed first"),)),
    _rule("STO081", _M.LOSS_PLATEAU, _C.DEAD_ACTIVATIONS, 0.5,
          "Units died, and nothing is learnt since.",
          (_beside(_M.DEAD_UNITS, "units died"),)),
    _rule("STO082", _M.LOSS_PLATEAU, _C.SATURATING_ACTIVATIONS, 0.45,
          "Gradients vanished, and nothing is learnt since.",
          (_beside(_M.VANISHING_GRADIENTS, "gradients vanished"),),
          source="Glorot and Bengio, AISTATS 2010"),
    _rule("STO083", _M.LOSS_PLATEAU, _C.PARAMETERS_NOT_UPDATED, 0.6,
          "Parameters stand still, and so does the loss.",
          (_beside(_M.FROZEN_PARAMETERS, "parameters froze"),),
          lowers=((_beside(_M.DEAD_UNITS, "units died"), 0.2),),
          source="TrainCheck, OSDI 2025: a step must change the parameters"),
    _rule("STO084", _M.LOSS_PLATEAU, _C.LOW_PRECISION_UPDATE_LOSS, 0.5,
          "Updates round to nothing, and the loss stands still.",
          (_beside(_M.PRECISION_LOSS, "updates were lost to rounding"),),
          lowers=((_beside(_M.DEAD_UNITS, "units died"), 0.2),)),
    _rule("STO085", _M.LOSS_PLATEAU, _C.LOSS_SCALE_EXHAUSTED, 0.5,
          "Steps were skipped or lost to the loss scale, and nothing is learnt since.",
          (_beside(_M.MIXED_PRECISION_INSTABILITY, "the loss scale failed"),),
          source="Micikevicius et al., Mixed Precision Training, ICLR 2018"),
    _rule("STO086", _M.LOSS_PLATEAU, _C.LEARNING_RATE_TOO_HIGH, 0.4,
          "Training ran away first; the plateau is what it left behind.",
          (_beside(_M.DIVERGENT_TRAINING, "the loss diverged"),)),
    _rule("STO091", _M.LOSS_SPIKE, _C.DATA_DISTRIBUTION_CHANGE, 0.5,
          "The data changed, and the loss rose with it.",
          (_before(_M.DISTRIBUTION_DRIFT, "the data drifted first"),)),
    _rule("STO092", _M.DIVERGENT_TRAINING, _C.DATA_DISTRIBUTION_CHANGE, 0.5,
          "The data changed, and the loss left its path.",
          (_before(_M.DISTRIBUTION_DRIFT, "the data drifted first"),)),
    _rule("STO093", _M.DIVERGENT_TRAINING, _C.DATA_DISTRIBUTION_CHANGE, 0.45,
          "The data changed at about step {onset_step}: the loss rose, and neither the learning "
          "rate nor the gradients did.", (_CALM, _STEADY, _LATE),
          "Compare the inputs and labels before and after step {onset_step}.",
          lowers=((_RAN_AWAY, 0.2),),
          source="Quionero-Candela et al., Dataset Shift in Machine Learning, 2009"),
    _rule("STO094", _M.DIVERGENT_TRAINING, _C.LEARNING_RATE_TOO_HIGH, 0.05,
          "The learning rate is too high, though the gradients do not show it.",
          (_CALM, _STEADY, _LATE), lowers=((_CALM, 0.4),)),
    _rule("STO095", _M.DIVERGENT_TRAINING, _C.MISSING_GRADIENT_CLIPPING, 0.05,
          "Clipping would have helped, though the gradients do not show it.",
          (_CALM, _STEADY, _LATE), lowers=((_CALM, 0.2),)),
    _rule("STO096", _M.DIVERGENT_TRAINING, _C.DEAD_ACTIVATIONS, 0.6,
          "Units died, and the loss went up with that step.",
          (Condition("lead.dead_units", ">=", -10, "units died within ten steps of it"),),
          "Look at what changed the biases of the layer at step {onset_step}.",
          lowers=((_JUMPED, 0.3),),
          source="Lu et al., Dying ReLU and Initialization, 2020"),
    _rule("STO101", _M.OOM_PRECURSOR, _C.MEMORY_FRAGMENTATION, 0.5,
          "Memory was fragmented before it ran short.",
          (_before(_M.MEMORY_FRAGMENTATION, "memory was fragmented first"),)),
    _rule("STO102", _M.PARTIAL_WORKER_FAILURE, _C.MEMORY_LEAK, 0.5,
          "Memory ran short, and then a worker was lost.",
          (_before(_M.OOM_PRECURSOR, "memory ran short first"),)),
    _rule("STO111", _M.STRAGGLER_EFFECT, _C.DATA_LOADER_BOTTLENECK, 0.5,
          "The worker is slow since it waits for its data.",
          (_before(_M.INPUT_STARVATION, "it waited for data first"),)),
    _rule("STO112", _M.PARTIAL_WORKER_FAILURE, _C.SLOW_WORKER, 0.4,
          "The worker grew slow before it was lost.",
          (_before(_M.STRAGGLER_EFFECT, "it was slow first"),)),
    _rule("STO121", _M.MIXED_PRECISION_INSTABILITY, _C.NUMERICAL_OVERFLOW, 0.4,
          "Infinities came first; the loss scale fell after them.", (_OVERFLOWED,)),
    _rule("STO122", _M.MIXED_PRECISION_INSTABILITY, _C.LEARNING_RATE_TOO_HIGH, 0.3,
          "Gradients exploded first; the loss scale fell after them.", (_EXPLODED,)),
    _rule("STO123", _M.INF_DETECTED, _C.NUMERICAL_OVERFLOW, 0.6,
          "The backward pass overflows at every step from {onset_step} on, and those steps are "
          "left out, as loss scaling does: the loss stays finite.",
          (Condition("quantity", "==", "grad_norm", "the gradients are infinite, not the loss"),
           Condition("count", ">=", 3, "{count} times"),
           Condition("quiet.nan_detected", "==", True, "nothing became NaN after it"),
           Condition("goes_on", "==", True, "it stays to the end of the log")),
          "Find the operation whose backward pass overflows at step {onset_step}, and compute it "
          "in float32; or train in bfloat16.",
          source="Micikevicius et al., Mixed Precision Training, ICLR 2018"),
    _rule("STO131", _M.TRAINING_SERVING_SKEW, _C.TARGET_LEAK, 0.4,
          "A feature that told the label in training is not there in serving.",
          (Condition("mode.label_leakage", "present", says="a feature told the label"),)),
    _rule("STO141", _M.NAN_DETECTED, _C.NUMERICAL_OVERFLOW, 0.3,
          "The run began from a checkpoint that was damaged already.",
          (Condition("mode.corrupt_checkpoint", "present", says="the checkpoint is damaged"),)),
)  # fmt: skip
