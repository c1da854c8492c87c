"""Tensors of one role across layers: ``layers.0.mlp.weight``, ``layers.1.mlp.weight``, ..."""

from __future__ import annotations

import re
from array import array
from collections import defaultdict

import numpy as np
import numpy.typing as npt

from ._tensor_list import TensorList

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


def families(tensors: TensorList, least: int) -> dict[str, npt.NDArray[np.int64]]:
    """Return the indices of tensors of one template, dtype and rank, `least` or more of them."""
    kinds = tensors.of_type(lambda name: name, object)
    ranks = tensors.of_shape(len, np.int64)
    groups: dict[tuple[str, str, int], array[int]] = defaultdict(lambda: array("q"))
    for index, name in enumerate(tensors.names()):
        key = template(name)
        if key != name:
            groups[(key, kinds[index], ranks[index])].append(index)
    return {
        key[0]: np.frombuffer(members, np.int64)
        for key, members in groups.items() if len(members) >= least
    }  # fmt: skip


def is_optimizer_state(name: str) -> bool:
    """Return whether a name is one of an optimizer's own tensors, where zeros are usual."""
    return _OPTIMIZER.search(name) is not None
