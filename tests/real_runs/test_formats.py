"""The files of known trainers and loggers beside this repository: read whole, judged sensibly.

That every value equals its source is held in ``tests/ingestion/test_real_runs.py``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ml_systems_debugger import diagnose
from ml_systems_debugger.core import Severity, detectors, word
from ml_systems_debugger.ingestion import find_runs, open_source

FORMATS = Path(__file__).resolve().parents[3] / "shared" / "real-runs" / "formats"
pytestmark = pytest.mark.skipif(
    not FORMATS.is_dir(), reason=f"the files of real runs are not here: {FORMATS}"
)

EVALUATION = ("eval_loss", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second")
SCORED = {
    "total_duration", "accumulated_submission_time", "accumulated_eval_time",
    "accumulated_logging_time", "validation/loss", "validation/num_examples", "test/loss",
    "test/num_examples", "train/loss",
}  # fmt: skip
OGBG = SCORED | {
    f"{split}/{name}"
    for split in ("train", "validation", "test")
    for name in ("accuracy", "mean_average_precision")
}
FIELDS = (
    "consumed_samples", "step_time", "learning rate", "global batch size", "loss scale",
    "number of skipped iterations", "number of nan iterations",
)  # fmt: skip
TIMERS = (
    "forward-compute", "forward-recv", "backward-compute", "backward-send",
    "backward-send-forward-recv", "backward-params-all-reduce", "backward-embedding-all-reduce",
    "optimizer-copy-to-main-grad", "optimizer-unscale-and-check-inf", "optimizer",
    "batch-generator",
)  # fmt: skip
SET_UP = ("load-checkpoint", "model-and-optimizer-setup", "train/valid/test-data-iterators-setup")
GROUPS = ("accuracy", "loss", "runtime", "samples_per_second", "steps_per_second")


def times(count: int, *names: str) -> dict[str, int]:
    return dict.fromkeys(names, count)


# How often each name stands in its file, counted in the files themselves.
COUNTS: dict[str, dict[str, int]] = {
    "hf_trainer/bashkir-language-audio2text": {
        **times(400, "loss", "grad_norm", "learning_rate"),
        **times(20, *EVALUATION, "eval_wer"), "epoch": 420,
    },
    "hf_trainer/trainer_state_viz": {
        **times(30, "loss", "grad_norm", "learning_rate"),
        **times(31, *(f"eval_g{n}_{name}" for n in range(6) for name in GROUPS)), "epoch": 216,
    },
    "hf_trainer/whisper-large-v2-japanese-5k-steps": {
        **times(200, "loss", "learning_rate"), **times(5, *EVALUATION, "eval_wer"), "epoch": 205,
    },
    "lightning/metrics.csv": {
        **times(2814, "train_loss_step", "train_perplexity_step"),
        **times(10, "epoch_time", "train_epoch_perplexity", "train_loss_epoch",
                "train_perplexity_epoch", "val_epoch_perplexity", "val_loss", "val_perplexity"),
        "epoch": 2834,
    },
    "megatron/": {
        **times(4, *FIELDS, *(f"timer_ms/{name}" for name in TIMERS)),
        **times(1, *(f"timer_ms/{name}" for name in SET_UP)),
    },
    "nanogpt/4518e917": {
        **times(1710, "train_time", "step_avg"), "val_loss": 15,
        **times(1, "max_memory_allocated", "max_memory_reserved"),
    },
    "nanogpt/480f6098": times(28, "train_time", "step_avg", "val_loss"),
    "tensorboard/criteo1tb_jax/": {
        **times(100, "lr", "loss", "grad_norm"), **times(63, *SCORED),
        **times(64, "score", "preemption_count"),
    },
    "tensorboard/ogbg_jax/": {
        **times(100, "lr", "loss", "grad_norm"), **times(77, *OGBG),
        **times(78, "score", "preemption_count"),
    },
}  # fmt: skip


def runs() -> list[Path]:
    return find_runs(FORMATS) if FORMATS.is_dir() else []


def label(path: Path) -> str:
    return path.relative_to(FORMATS).as_posix()


def test_every_file_is_found() -> None:
    assert len(runs()) == sum(1 for file in FORMATS.rglob("*") if file.is_file()) == 11


@pytest.mark.parametrize("path", runs(), ids=label)
def test_names_and_counts(path: Path) -> None:
    (expected,) = [counts for front, counts in COUNTS.items() if label(path).startswith(front)]
    signals = open_source(path)
    assert signals.unread == ()
    found = {one.source_name or one.name: len(one) for one in signals.select()}
    if "tfevents" in path.name:  # the step is written as a metric there as well
        assert found.pop("global_step") == max(found.values()) + found["score"]
    assert found == expected


@pytest.mark.parametrize(
    "path",
    [path for path in runs() if "viz" not in str(path) and "whisper" not in str(path)],
    ids=label,
)
def test_what_went_well_has_nothing_at_high(path: Path) -> None:
    assert [f.message for f in diagnose(path).failures if f.severity >= Severity.HIGH] == []


@pytest.mark.parametrize("name", ["viz", "whisper"])
def test_what_learns_by_heart_is_overfitting(name: str) -> None:
    if "overfitting" not in detectors.names:
        pytest.skip("no detector of overfitting is registered")
    (path,) = (path for path in runs() if name in str(path))
    assert "overfitting" in {word(f.failure_mode) for f in diagnose(path).failures}
