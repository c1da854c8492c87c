"""The monitor in a real Lightning `Trainer`."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
lightning = pytest.importorskip("lightning.pytorch", reason="lightning is not installed")

from given import follow  # noqa: E402

from ml_systems_debugger.integrations.lightning import MonitorCallback  # noqa: E402
from ml_systems_debugger.monitoring import FaultFound  # noqa: E402


class Net(lightning.LightningModule):  # type: ignore[misc, name-defined, unused-ignore]
    """A regression; batch `bad` has a loss that is not finite."""

    def __init__(self, bad: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = torch.nn.Linear(4, 8)
        self.head = torch.nn.Linear(8, 1)
        self.bad = bad
        self.calls = 0
        self.seen: list[float] = []

    def training_step(self, batch: Any, _: int) -> Any:
        self.calls += 1
        loss = self._loss(batch)
        self.seen.append(float(loss))
        return loss if self.calls != self.bad else loss + (self.body.weight[0, 0] * 0).log()

    def validation_step(self, batch: Any, _: int) -> None:
        self.log("val_loss", self._loss(batch))

    def _loss(self, batch: Any) -> Any:
        (x,) = batch
        return (self.head(torch.tanh(self.body(x)))[:, 0] - x.sum(1) / 4).square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), 1e-2)


def batches(count: int = 320) -> Any:
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(1))
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x), 16)


def trained(folder: Path, callback: MonitorCallback, net: Net | None = None, **given: Any) -> Any:
    settings = {
        "max_epochs": 2, "accelerator": "cpu", "logger": False, "enable_progress_bar": False,
        "enable_model_summary": False, "enable_checkpointing": False, "default_root_dir": folder,
    }  # fmt: skip
    resume = given.pop("resume", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on loaders and its own dependencies
        trainer = lightning.Trainer(**{**settings, **given}, callbacks=[callback])
        trainer.fit(net or Net(), batches(), batches(32), ckpt_path=resume)
    return trainer


def found(callback: MonitorCallback) -> list[tuple[str, int | None]]:
    assert callback.monitor is not None
    return [(str(f.failure_mode), f.onset_step) for f in callback.monitor.findings]


def test_a_healthy_training_is_silent(tmp_path: Path) -> None:
    callback = MonitorCallback(action="none", every=1000)
    told: list[dict[str, Any]] = []
    net = Net()
    follow(callback, told)
    trained(tmp_path, callback, net)
    assert found(callback) == []
    assert [one["loss"] for one in told] == pytest.approx(net.seen)
    assert {one["lr"] for one in told} == {1e-2}
    assert sum("val_loss" in one for one in told) == 2, "with the step behind which it ran"


def test_a_loss_that_is_not_finite_is_told_in_its_step(tmp_path: Path) -> None:
    callback = MonitorCallback(action="stop")
    trainer = trained(tmp_path, callback, Net(bad=12))
    assert any(step == 12 for _, step in found(callback))
    assert trainer.global_step == 12, "it stops behind the batch"


def test_raise_ends_the_training(tmp_path: Path) -> None:
    with pytest.raises(FaultFound):
        trained(tmp_path, MonitorCallback(action="raise"), Net(bad=12))


def test_the_loss_of_several_batches_is_their_mean(tmp_path: Path) -> None:
    callback, told, net = MonitorCallback(action="none"), [], Net()  # type: ignore[var-annotated]
    follow(callback, told)
    trained(tmp_path, callback, net, accumulate_grad_batches=2)
    pairs = [sum(net.seen[at : at + 2]) / 2 for at in range(0, len(net.seen), 2)]
    assert [one["loss"] for one in told] == pytest.approx(pairs)
    assert [one["step"] for one in told] == list(range(1, 21))


def test_a_resumed_training_goes_on(tmp_path: Path) -> None:
    first = MonitorCallback(action="none")
    trainer = trained(tmp_path, first, enable_checkpointing=True)
    path = tmp_path / "end.ckpt"
    trainer.save_checkpoint(path)
    second = MonitorCallback(action="none")
    trained(tmp_path, second, max_epochs=3, resume=path)
    assert found(second) == []
    assert second.monitor is not None
    state = second.monitor.state_dict()
    assert (state["step"], state["segment"]) == (60, 0)
