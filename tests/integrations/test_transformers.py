"""The monitor in a real Hugging Face `Trainer`."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
pytest.importorskip("accelerate", reason="the Trainer needs accelerate")

from given import follow  # noqa: E402

from ml_systems_debugger import ConfigurationError  # noqa: E402
from ml_systems_debugger.integrations.transformers import MonitorCallback  # noqa: E402
from ml_systems_debugger.monitoring import FaultFound, MonitorWarning  # noqa: E402


class Net(torch.nn.Module):
    """A regression that returns its loss as models of the library do; step `bad` is not finite."""

    def __init__(self, bad: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = torch.nn.Linear(4, 8)
        self.head = torch.nn.Linear(8, 1)
        self.bad = bad
        self.calls = 0

    def forward(self, x: Any, labels: Any) -> dict[str, Any]:
        out = self.head(torch.tanh(self.body(x)))[:, 0]
        loss = (out - labels).square().mean()
        if self.training:
            self.calls += 1
            if self.calls == self.bad:
                loss = loss + (self.body.weight[0, 0] * 0).log()
        return {"loss": loss, "logits": out}


def rows(count: int = 256) -> list[dict[str, Any]]:
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(1))
    return [{"x": one, "labels": one.sum() / 4} for one in x]


def trained(folder: Path, callback: MonitorCallback, net: Net | None = None, **given: Any) -> Any:
    settings = {
        "output_dir": str(folder), "per_device_train_batch_size": 16, "max_steps": 40,
        "logging_steps": 5, "report_to": [], "use_cpu": True, "disable_tqdm": True,
        "save_strategy": "no", "logging_nan_inf_filter": False, "dataloader_pin_memory": False,
    }  # fmt: skip
    resume = given.pop("resume", None)
    args = transformers.TrainingArguments(**{**settings, **given})
    trainer = transformers.Trainer(
        net or Net(), args, train_dataset=rows(), eval_dataset=rows(32), callbacks=[callback]
    )
    trainer.remove_callback(transformers.PrinterCallback)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module="torch")
        trainer.train(resume_from_checkpoint=resume)
    return trainer


def found(callback: MonitorCallback) -> list[tuple[str, int | None]]:
    assert callback.monitor is not None
    return [(str(f.failure_mode), f.onset_step) for f in callback.monitor.findings]


def test_a_healthy_training_is_silent(tmp_path: Path) -> None:
    callback, told = MonitorCallback(action="none"), []  # type: ignore[var-annotated]
    follow(callback, told)
    trainer = trained(tmp_path, callback, eval_strategy="steps", eval_steps=10, logging_steps=1)
    assert found(callback) == []
    assert [one["step"] for one in told] == list(range(1, 41))
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert [one["loss"] for one in told] == pytest.approx(logged, abs=1e-3)
    assert [one["step"] for one in told if "eval_loss" in one] == [10, 20, 30, 40]
    assert all("lr" in one for one in told)


def test_a_loss_that_is_not_finite_is_told_in_its_step(tmp_path: Path) -> None:
    callback = MonitorCallback(action="stop")
    trainer = trained(tmp_path, callback, Net(bad=12))
    assert ("nan_detected", 12) in found(callback) or ("inf_detected", 12) in found(callback)
    assert trainer.state.global_step == 12, "it stops behind the step"


def test_what_the_log_hides_is_seen(tmp_path: Path) -> None:
    callback = MonitorCallback(action="none")
    with pytest.warns(MonitorWarning, match="logging_nan_inf_filter"):
        trained(tmp_path, callback, Net(bad=12), logging_nan_inf_filter=True)
    assert any(step == 12 for _, step in found(callback))


def test_raise_ends_the_training(tmp_path: Path) -> None:
    with pytest.raises(FaultFound):
        trained(tmp_path, MonitorCallback(action="raise"), Net(bad=12))


def test_the_loss_of_several_batches_is_their_mean(tmp_path: Path) -> None:
    callback, told = MonitorCallback(action="none"), []  # type: ignore[var-annotated]
    follow(callback, told)
    trainer = trained(
        tmp_path, callback, gradient_accumulation_steps=2, max_steps=6, logging_steps=1
    )
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert [one["loss"] for one in told] == pytest.approx(logged, abs=1e-3)


def test_a_resumed_training_goes_on(tmp_path: Path) -> None:
    first = MonitorCallback(action="none")
    trained(tmp_path, first, save_strategy="steps", save_steps=20)
    saved = tmp_path / "checkpoint-20" / "mlsd_monitor.json"
    assert saved.is_file()
    second = MonitorCallback(action="none")
    trained(tmp_path, second, save_strategy="steps", save_steps=20,
            resume=str(tmp_path / "checkpoint-20"))  # fmt: skip
    assert found(second) == []
    assert second.monitor is not None
    state = second.monitor.state_dict()
    assert (state["step"], state["segment"]) == (40, 0)


def test_the_trainer_gives_model_and_optimizer() -> None:
    with pytest.raises(ConfigurationError, match="gives the model"):
        MonitorCallback(model=Net())
