"""Small runs under the real loggers of three frameworks; what they were told goes to told.json.

python write_runs.py hf_trainer|lightning|keras FOLDER
"""

from __future__ import annotations

import json
import math
import os
import sys
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

os.environ.update(
    HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", KERAS_BACKEND="torch", TQDM_DISABLE="1",
    CUDA_VISIBLE_DEVICES="",
)  # fmt: skip
warnings.simplefilter("ignore")

ODD = [0.5, math.nan, math.inf, -math.inf, 1e-30, 3.0]


def told(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows in order, every number by its repr."""
    text = json.dumps([{key: repr(value) for key, value in row.items()} for row in rows])
    (folder / "told.json").write_text(text)


def hf_trainer(folder: Path) -> None:
    for hide in (True, False):
        inner = folder / ("hidden" if hide else "open")
        inner.mkdir()
        with (inner / "stdout.log").open("w") as out, redirect_stdout(out):
            train(inner, hide=hide)


def train(folder: Path, *, hide: bool) -> None:
    import torch
    from transformers import Trainer, TrainingArguments

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(2, 1)

        def forward(self, x: Any, labels: Any) -> dict[str, Any]:
            out = self.layer(x).squeeze(-1)
            return {"loss": ((out - labels) ** 2).mean(), "logits": out}

    class Rows(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 48

        def __getitem__(self, at: int) -> dict[str, Any]:
            x = torch.tensor([float(at % 7), 1.0])
            return {"x": x * math.inf if at == 20 else x, "labels": torch.tensor(1.0)}

    torch.manual_seed(0)
    arguments = TrainingArguments(
        str(folder), per_device_train_batch_size=4, num_train_epochs=1, logging_steps=1,
        save_strategy="no", use_cpu=True, report_to=[], disable_tqdm=True, eval_strategy="steps",
        eval_steps=4, logging_nan_inf_filter=hide, seed=0,
    )  # fmt: skip
    trainer = Trainer(Net(), arguments, train_dataset=Rows(), eval_dataset=Rows())
    trainer.train()
    for value in ODD:
        trainer.state.global_step += 1
        trainer.log({"loss": value, "grad_norm": value, "learning_rate": 1e-5})
    trainer.save_state()
    told(folder, trainer.state.log_history)


def lightning(folder: Path) -> None:
    for one in (logged, fitted):
        inner = folder / one.__name__
        inner.mkdir()
        one(inner)


def logged(folder: Path) -> None:
    from lightning.pytorch.loggers import CSVLogger

    logger = CSVLogger(str(folder), name="run", version=0)
    rows = []
    for step, value in enumerate(ODD):
        rows.append({"step": step * 10, "train_loss_step": value, "lr-Adam": 1e-3 / (step + 1)})
        if step % 2:
            rows.append({"step": step * 10, "val_loss": value, "epoch": step // 2})
    for row in rows:
        metrics = {key: value for key, value in row.items() if key != "step"}
        logger.log_metrics(metrics, step=row["step"])
    logger.finalize("success")
    told(folder, rows)


def fitted(folder: Path) -> None:
    import lightning.pytorch as pl
    import torch

    class Net(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(2, 1)
            self.rows: list[dict[str, Any]] = []

        def training_step(self, batch: Any, index: int) -> Any:
            loss = self.layer(batch).square().mean()
            shown = loss * math.nan if self.global_step == 3 else loss
            self.log("train_loss", shown)
            self.rows.append({"step": self.global_step, "train_loss": float(shown.detach())})
            return loss

        def validation_step(self, batch: Any, index: int) -> None:
            self.log("val_loss", self.layer(batch).square().mean() * math.inf)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    torch.manual_seed(0)
    data = torch.utils.data.DataLoader(torch.randn(16, 2), batch_size=4)
    logger = pl.loggers.CSVLogger(str(folder), name="run", version=0)
    net = Net()
    pl.Trainer(
        max_epochs=2, logger=logger, log_every_n_steps=1, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    ).fit(net, data, data)  # fmt: skip
    told(folder, net.rows)


def keras(folder: Path) -> None:
    import keras as k
    import numpy as np

    class Odd(k.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs.update(odd=ODD[epoch], learning_rate=0.1 / (epoch + 1))

    k.utils.set_random_seed(0)
    model = k.Sequential([k.layers.Input((2,)), k.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    rows: list[dict[str, Any]] = []
    keep = k.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: rows.append({"epoch": epoch, **logs})
    )
    data = np.arange(16.0).reshape(8, 2) / 16, np.ones(8)
    model.fit(
        *data, validation_data=data, epochs=len(ODD), verbose=0,
        callbacks=[Odd(), keep, k.callbacks.CSVLogger(str(folder / "training.csv"))],
    )  # fmt: skip
    told(folder, rows)


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]))
