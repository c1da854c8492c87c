"""Tensors of one role across layers: ``layers.0.mlp.weight``, ``layers.1.mlp.weight``, ..."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from .contract import TensorInfo

__all__ = ["families", "is_optimizer_state", "template"]

_NUMBER = re.compile(r"(?<![^._/:\[])\d+(?![^._/:\]])")
_OPTIMIZER = re.compile(
    r"(^|[._/])(exp_avg(_sq)?|max_exp_avg_sq|momentum_buffer|square_avg|acc_delta|grad_avg|"
    r"prev|sum|moments?|mu|nu|optimizer_state\w*|optim(izer)?)([._/]|$)"
)


def template(name: str) -> str:
    """Return the name with every number that stands alone replaced by a star.

    Examples
    --------
    >>> template("model.layers.12.mlp.up_proj.weight")
    'model.layers.*.mlp.up_proj.weight'
    """
    return _NUMBER.sub("*", name)


def families(tensors: Sequence[TensorInfo], least: int) -> dict[str, list[int]]:
    """Return the indices of tensors of one template, dtype and rank, `least` or more of them."""
    groups: dict[tuple[str, str, int], list[int]] = defaultdict(list)
    for index, info in enumerate(tensors):
        key = template(info.name)
        if key != info.name:
            groups[(key, info.dtype, len(info.shape))].append(index)
    return {key[0]: members for key, members in groups.items() if len(members) >= least}


def is_optimizer_state(name: str) -> bool:
    """Return whether a name is one of an optimizer's own tensors, where zeros are usual."""
    return _OPTIMIZER.search(name) is not None
