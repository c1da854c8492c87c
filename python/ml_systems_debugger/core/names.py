"""The names of quantities: one canonical word each, with the aliases that loggers use.

A raw name such as ``train/loss``, ``eval_loss``, ``learning_rate`` or
``grad_norm/encoder.0.weight`` is taken apart into quantity, split and layer.
A name that is not known passes through untouched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

__all__ = ["ALIASES", "HELD_OUT", "SPLITS", "QuantityName", "canonical", "qualified", "resolve"]

ALIASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        # Where and when.
        "step": (
            "global_step",
            "iteration",
            "iter",
            "iterations",
            "trainer/global_step",
            "train/global_step",
            "_step",
            "training_step",
            "train_step",
            "num_updates",
            "global_steps",
        ),
        "epoch": ("epochs", "current_epoch"),
        "replica_id": ("replica", "rank", "worker", "worker_id", "global_rank", "process_index"),
        "timestamp": ("time", "_timestamp", "wall_time", "walltime", "datetime"),
        "layer_name": ("layer", "module_name", "param_name", "parameter_name"),
        "run": ("run_id", "run_name", "run_uuid"),
        "seed": ("random_seed",),
        # How well it goes.
        "loss": (
            "lm_loss",
            "total_loss",
            "loss_total",
            "nll_loss",
            "mean_loss",
            "avg_loss",
            "average_loss",
            "minibatch_loss",
            "losses",
        ),
        "accuracy": (
            "acc",
            "accuracies",
            "top1",
            "top1_accuracy",
            "acc1",
            "accuracy_top1",
            "top_1_accuracy",
            "acc@1",
            "prec@1",
            "sparse_categorical_accuracy",
            "categorical_accuracy",
            "binary_accuracy",
        ),
        "perplexity": ("ppl",),
        # The optimiser.
        "lr": ("learning_rate", "lr_0", "lr_adam", "lr_adamw", "lr_sgd", "current_lr"),
        "grad_norm": (
            "gradient_norm",
            "global_grad_norm",
            "total_grad_norm",
            "grad_l2_norm",
            "gnorm",
            "grad_norm_total",
            "gradient_l2_norm",
            "global_gradient_norm",
            "grad_2_norm_total",
        ),
        "clipped_grad_norm": ("grad_norm_clipped", "grad_norm_after_clip"),
        "param_norm": ("params_norm", "weight_norm", "parameter_norm", "params_l2_norm"),
        "update_ratio": ("update_to_weight_ratio", "update_to_param_ratio"),
        "carried_gradient": (),
        "update_zero_fraction": ("unchanged_fraction", "lost_update_fraction"),
        "loss_scale": ("amp_scale", "grad_scale", "dynamic_loss_scale", "grad_scaler_scale"),
        "skipped_step": ("number_of_skipped_iterations", "skipped_steps", "overflow_skip"),
        "nan_step": ("number_of_nan_iterations",),
        # What goes into the model: deviation and largest magnitude of a batch.
        "input_std": ("inputs_std", "batch_std"),
        "input_absmax": ("inputs_absmax", "batch_absmax", "input_abs_max"),
        # Inside the model.
        "activation_zero_fraction": ("dead_fraction", "zero_activation_fraction"),
        "activation_std": ("activations_std",),
        "gradient": ("grad", "gradients", "grads"),
        "parameter": ("param", "params", "parameters", "weight", "weights"),
        "activation": ("activations",),
        "param_digest": ("parameter_digest", "weight_digest"),
        "grad_digest": ("gradient_digest",),
        # Time and memory.
        "step_time": (
            "iteration_time",
            "time_per_step",
            "batch_time",
            "step_time_s",
            "train_batch_time",
        ),
        "data_time": (
            "data_loading_time",
            "dataloader_time",
            "data_wait_time",
            "data_load_time",
            "batch_load_time",
        ),
        "compute_time": ("forward_backward_time", "fwd_bwd_time", "compute_time_s"),
        "comm_time": (
            "communication_time",
            "comm_time_s",
            "allreduce_time",
            "all_reduce_time",
            "sync_time",
        ),
        "collective_seq": (),
        "collective_completed": (),
        "collective_lag": (),
        "collective_time": (),
        "collective_timeout": (),
        "tokens_per_second": ("tps", "tokens_per_sec", "throughput_tokens"),
        "memory_allocated": ("gpu_memory_allocated", "memory_allocated_bytes"),
        "memory_reserved": ("gpu_memory_reserved", "memory_reserved_bytes"),
        "memory_total": ("gpu_memory_total",),
        "max_memory_allocated": (
            "peak_memory_allocated",
            "peak_memory",
            "memory_peak",
            "gpu_memory_peak",
        ),
        "max_memory_reserved": ("peak_memory_reserved",),
        "host_memory": ("cpu_memory", "host_memory_used", "cpu_memory_used", "process_rss", "rss"),
        "host_memory_total": ("cpu_memory_total",),
        "allocation_failed": (),
    }
)
"""Canonical name -> the other names that mean the same (compared in lower
case, with blanks and hyphens as underscores)."""

_LAYERED = frozenset(
    {
        "grad_norm", "param_norm", "update_ratio", "update_zero_fraction",
        "carried_gradient",
        "activation_zero_fraction", "activation_std", "input_std", "input_absmax",
        "param_digest", "grad_digest", "gradient", "parameter", "activation",
        "collective_seq", "collective_completed", "collective_lag", "collective_time",
    }
)  # fmt: skip

_PACES = ("step", "epoch", "batch")
"""What a logger adds to a name to say how often it is logged."""
_PACED = frozenset({"loss", "accuracy", "perplexity", "grad_norm", "lr"})

_FOLDERS = frozenset({"metrics", "scalars", "stats"})
"""Folders that say nothing of what lies in them."""

_UNSPLIT = frozenset({"step", "replica_id", "timestamp", "layer_name", "run", "seed"})
"""What has no split: ``train_time`` is a duration of its own, not a time stamp."""

_SPLIT_WORDS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "dev": "dev", "eval": "eval", "evaluation": "eval", "test": "test",
}  # fmt: skip
SPLITS = frozenset(_SPLIT_WORDS.values())
HELD_OUT = SPLITS - {"train"}
_BY_ALIAS = {alias: name for name, aliases in ALIASES.items() for alias in (name, *aliases)}


class QuantityName(NamedTuple):
    """A raw name taken apart.

    `split` is None where the name says nothing of it, else one of `SPLITS`,
    with the data set behind an underscore where the name holds one
    (``eval_wikitext_loss`` -> ``eval_wikitext``). `known` tells whether the
    quantity is in the table.
    """

    name: str
    split: str | None = None
    layer: str | None = None
    known: bool = False


def _folded(text: str) -> str:
    return re.sub(r"[\s\-]+", "_", text.strip().lower())


@lru_cache(maxsize=65536)
def canonical(raw: str) -> QuantityName:
    """Take a raw metric name apart.

    Examples
    --------
    >>> canonical("train/loss")
    QuantityName(name='loss', split='train', layer=None, known=True)
    >>> canonical("learning_rate").name, canonical("my_metric").name
    ('lr', 'my_metric')
    >>> canonical("grad_norm/encoder.0.weight").layer
    'encoder.0.weight'
    """
    folded = _folded(raw)
    if folded in _BY_ALIAS:
        return QuantityName(_BY_ALIAS[folded], known=True)
    return (
        _with_slash(raw.strip())
        or _with_underscore(folded)
        or _with_pace(folded)
        or QuantityName(raw)
    )


def _with_slash(raw: str) -> QuantityName | None:
    head, slash, rest = raw.partition("/")
    if not slash or not head or not rest:
        return None
    if (split := _SPLIT_WORDS.get(_folded(head))) is not None:
        inner = canonical(rest)
        plain = inner.split is None and inner.name not in _UNSPLIT
        return inner._replace(split=split) if plain else None
    if _folded(head) in _FOLDERS and (inner := canonical(rest)).known:
        return inner
    if (name := _BY_ALIAS.get(_folded(head))) in _LAYERED and name is not None:
        return QuantityName(name, layer=rest, known=True)
    front, _, last = raw.rpartition("/")
    if (split := _SPLIT_WORDS.get(_folded(last))) is not None and canonical(front).known:
        return canonical(front)._replace(split=split)
    if (name := _BY_ALIAS.get(_folded(last))) is None:
        return None
    if name in _LAYERED:
        return QuantityName(name, layer=front, known=True)
    # A free folder (``optim/lr``, ``metrics/loss``) says nothing of the quantity.
    return QuantityName(name, known=True) if "/" not in front else None


def _with_underscore(folded: str) -> QuantityName | None:
    head, _, rest = folded.partition("_")
    if (split := _SPLIT_WORDS.get(head)) is not None and rest:
        if _BY_ALIAS.get(rest, "step") not in _UNSPLIT:
            return QuantityName(_BY_ALIAS[rest], split=split, known=True)
        for name in ("loss", "accuracy", "perplexity"):
            if rest.endswith(f"_{name}"):
                data_set = rest[: -len(name) - 1]
                if data_set in _PACES:
                    return QuantityName(name, split=split, known=True)
                return QuantityName(name, split=f"{split}_{data_set}", known=True)
    front, _, last = folded.rpartition("_")
    if (split := _SPLIT_WORDS.get(last)) is not None and front in _BY_ALIAS:
        return QuantityName(_BY_ALIAS[front], split=split, known=True)
    return None


def _with_pace(folded: str) -> QuantityName | None:
    """Take ``loss_step``, ``train_loss_epoch`` or ``epoch_loss`` for the quantity it is."""
    front, _, last = folded.rpartition("_")
    head, _, rest = folded.partition("_")
    inner = front if last in _PACES else rest if head in _PACES else ""
    if not inner:
        return None
    parts = canonical(inner)
    return parts if parts.known and parts.name in _PACED and parts.layer is None else None


def qualified(name: str, split: str | None = None, layer: str | None = None) -> str:
    """Return the one written form: ``loss``, ``val_loss``, ``grad_norm/encoder.0``."""
    text = name if split in (None, "train") else f"{split}_{name}"
    return text if layer is None else f"{text}/{layer}"


def _claim(raw: str) -> int:
    """Return how weak the claim of a raw name on its canonical one is."""
    if canonical(raw).name == raw:
        return 0
    words = _folded(raw).split("_")
    return 3 if "epoch" in words else 2 if "step" in words else 1


def resolve(raw_names: Iterable[str]) -> dict[str, QuantityName]:
    """Take the names of one table apart so that no two mean the same series.

    An exact canonical name wins over an alias, one per step (``loss_step``)
    over one per epoch (``loss_epoch``), and else an earlier alias over a later
    one; a name that loses keeps its raw spelling as its quantity.

    Examples
    --------
    >>> found = resolve(["learning_rate", "lr"])
    >>> found["lr"].name, found["learning_rate"].name
    ('lr', 'learning_rate')
    """
    names = list(dict.fromkeys(raw_names))
    taken: set[tuple[str, str | None, str | None]] = set()
    found: dict[str, QuantityName] = {}
    for raw in sorted(names, key=_claim):
        parts = canonical(raw)
        if parts[:3] in taken:
            parts = QuantityName(raw)
        taken.add(parts[:3])
        found[raw] = parts
    return {raw: found[raw] for raw in names}
