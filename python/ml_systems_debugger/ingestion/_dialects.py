"""How trainers write their lines: patterns and names as data, one entry per trainer.

The general grammar (``key=value``, ``key: value``, ``known-name value``) reads
most lines as they are. A dialect says only what the general grammar cannot
know: which names its trainer uses for which quantity, in which unit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["DIALECTS", "Dialect", "unit_factor"]


@dataclass(frozen=True, slots=True)
class Dialect:
    """The peculiarities of one trainer's lines.

    Parameters
    ----------
    name : str
    marker : compiled pattern
        A line in which this is found is of this dialect; the first one wins.
    names : mapping of str to str
        Name as written (lower case, blanks as underscores) to the name it
        means; "" for what is no measurement.
    bars : bool
        Whether fields stand between bars, with names of several words.
    constants : mapping of str to float
        What the line says without a number.
    prefix : str
        Put before the names that are not in `names`.
    named : compiled pattern, optional
        Where the quantity stands apart from its name: finds ``key`` and ``value``.
    """

    name: str
    marker: re.Pattern[str]
    names: Mapping[str, str] = field(default_factory=dict)
    bars: bool = False
    constants: Mapping[str, float] = field(default_factory=dict)
    named: re.Pattern[str] | None = None
    prefix: str = ""


DIALECTS: tuple[Dialect, ...] = (
    Dialect(
        "megatron",
        re.compile(r"\biteration\s+\d+/\s*\d+ \|"),
        {
            "elapsed_time_per_iteration_(ms)": "step_time (ms)",
            "elapsed_time_per_iteration_(s)": "step_time (s)",
            "consumed_samples": "consumed_samples",
            "params_norm": "param_norm",
        },
        bars=True,
    ),
    Dialect(
        "megatron",
        re.compile(r"\b(?:validation|test) loss at (?:iteration|the end)", re.IGNORECASE),
        {"lm_loss_value": "val_loss", "lm_loss_ppl": "val_perplexity"},
        bars=True,
    ),
    Dialect("megatron", re.compile(r"^\s*time \(ms\) \|"), bars=True, prefix="timer_ms/"),
    Dialect(
        "megatron",
        re.compile(r"\bmemory \(MB\) \|"),
        {
            "allocated": "memory_allocated (MiB)",
            "max_allocated": "max_memory_allocated (MiB)",
            "reserved": "memory_reserved (MiB)",
            "max_reserved": "max_memory_reserved (MiB)",
        },
        bars=True,
    ),
    Dialect(
        "deepspeed",
        re.compile(r"skipping step.*attempted loss scale.*reducing to", re.IGNORECASE),
        {"attempted_loss_scale": "", "reducing_to": "loss_scale"},
        constants={"skipped_step": 1.0},
    ),
    Dialect(
        "deepspeed",
        re.compile(r"\bstep=\d+, skipped=\d+, lr="),
        {"skipped": "skipped_steps_total", "mom": "momentum"},
    ),
    Dialect(
        "nanogpt",
        re.compile(r"^\s*peak memory allocated: \d+ [KMGT]i?B\b"),
        {"peak_memory_allocated": "max_memory_allocated", "reserved": "max_memory_reserved"},
    ),
    Dialect("nanogpt", re.compile(r"\biter \d+: loss "), {"time": "step_time"}),
    Dialect(
        "torchtitan",
        re.compile(r"\bstep:\s*\d+\s+loss:.*\btps:"),
        {"memory": "memory_reserved"},
    ),
    Dialect(
        "mlperf",
        re.compile(r":::MLLOG \{"),
        {"time_ms": "", "lineno": "", "value": "", "epoch_num": "epoch", "step_num": "step"},
        named=re.compile(r'"key":\s*"(?P<key>[^"]+)",\s*"value":\s*(?P<value>[-+\w.]+)\s*[,}]'),
    ),
    Dialect("fairseq", re.compile(r"\| (?:train|train_inner|valid) \|"), {"wall": "", "wps": ""}),
)

_SECONDS = {"s": 1.0, "sec": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9, "min": 60.0}
_BYTES = {
    "b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12,
    "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30, "tib": 2.0**40,
}  # fmt: skip


def unit_factor(name: str, unit: str) -> float:
    """Return what a value in `unit` is multiplied with, by the quantity it stands for.

    Times become seconds and memory bytes where the quantity is in the
    vocabulary; everything else stays as it is written.
    """
    folded = unit.strip().lower()
    if name in ("step_time", "data_time"):
        return _SECONDS.get(folded, 1.0)
    return _BYTES.get(folded, 1.0) if name.startswith(("memory_", "max_memory_")) else 1.0
