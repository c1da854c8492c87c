"""Trainer states: every entry of the history, and losses that the Trainer hides."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from ml_systems_debugger.core import SchemaError
from ml_systems_debugger.ingestion import HFTrainerIngestor, open_source

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "real-runs/formats/hf_trainer"


def state(*history: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"global_step": 9, "log_history": list(history), **more}, indent=2).encode()


def test_every_entry_is_read() -> None:
    data = state(
        {"step": 5, "epoch": 0.5, "loss": 2.0, "learning_rate": 1e-5, "grad_norm": math.nan},
        {"step": 5, "epoch": 0.5, "eval_loss": 1.5, "eval_wiki_loss": 3.0},
        {"step": 9, "train_loss": 1.8, "train_runtime": 3.5},
        best_metric=1.5,
    )
    signals = open_source(data)
    found = {(s.name, s.key.split): (s.steps.tolist(), s.values.tolist()) for s in signals.series}
    assert found["loss", None] == ([5], [2.0])
    assert found["loss", "eval"] == ([5], [1.5])
    assert found["loss", "eval_wiki"] == ([5], [3.0])
    assert found["loss", "train"] == ([9], [1.8])
    assert found["lr", None] == ([5], [1e-5])
    assert math.isnan(found["grad_norm", None][1][0])
    assert signals.metadata["trainer"] == {"best_metric": 1.5, "global_step": 9}
    assert "not_trustworthy" not in signals.metadata


def test_a_zero_loss_beside_a_nan_gradient_is_not_trustworthy() -> None:
    data = state(
        {"step": 1, "loss": 2.0, "grad_norm": 1.0}, {"step": 2, "loss": 0.0, "grad_norm": math.nan}
    )
    assert "step 2" in str(open_source(data).metadata["not_trustworthy"])


def test_hidden_losses_are_told_in_every_source() -> None:
    line = b"{'loss': 0.0, 'grad_norm': nan, 'epoch': 0.5}\n{'loss': 1.0, 'grad_norm': 1.0}\n"
    assert "at 1 steps" in str(open_source(line).metadata["not_trustworthy"])
    assert "not_trustworthy" not in open_source({"loss": [0.0], "grad_norm": [1.0]}).metadata


@pytest.mark.parametrize("history", [{"a": 1}, [1, 2], None, "x"])
def test_a_history_that_is_none(history: Any) -> None:
    data = json.dumps({"log_history": history}).encode()
    with pytest.raises(SchemaError, match=r"<bytes>, column 'log_history'"):
        HFTrainerIngestor().ingest(data)


def test_a_state_that_is_cut_off() -> None:
    with pytest.raises(SchemaError, match=r"<bytes>, line .*no valid JSON"):
        open_source(state({"step": 1, "loss": 2.0})[:-20])


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real runs at {REAL}")
@pytest.mark.parametrize(
    "path", sorted(REAL.glob("*/trainer_state.json")), ids=lambda p: p.parent.name
)
def test_real_states_are_read_whole(path: Path) -> None:
    history = json.loads(path.read_text())["log_history"]
    signals = open_source(path)
    assert signals.unread == ()
    for name in {key for entry in history for key in entry} - {"step"}:
        (one,) = [s for s in signals.series if (s.source_name or s.name) == name]
        expected = [(e["step"], float(e[name])) for e in history if name in e]
        assert list(zip(one.steps.tolist(), one.values.tolist(), strict=True)) == expected
