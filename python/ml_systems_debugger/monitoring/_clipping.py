"""Sees torch clip gradients while a monitor watches, to measure what they were before."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Clipped", "Factor", "listen", "unlisten"]

_PLACES = (("clip_grad", "_clip_grads_with_norm_"), ("", "clip_grads_with_norm_"))
"""What every way to clip by a norm calls last, and the same under its public name."""


@dataclass(frozen=True)
class Factor:
    """What clipping multiplies by: known once `total_norm` is, which may be on a device."""

    max_norm: float
    total_norm: Any

    def __call__(self, total: float | None = None) -> float:
        """Return it; without `total` the norm is read, which waits for a device."""
        total = float(self.total_norm) if total is None else total
        return min(float(self.max_norm) / (total + 1e-6), 1.0)


class Clipped(Protocol):
    """What is told of clipping."""

    def clipping(self, parameters: Sequence[Any], factor: Factor) -> None:
        """Take that gradients of `parameters` are about to be multiplied by `factor()`."""


_listeners: weakref.WeakSet[Any] = weakref.WeakSet()
_replaced: list[tuple[Any, str, Any]] = []


def listen(one: Clipped) -> None:
    """Tell `one` from now on, as long as it lives."""
    if not _replaced:
        _replace()
    _listeners.add(one)


def unlisten(one: Clipped) -> None:
    """Tell it no more; torch is as it was where it was the last."""
    _listeners.discard(one)
    if _listeners:
        return
    while _replaced:
        module, name, original = _replaced.pop()
        if getattr(getattr(module, name), "__wrapped__", None) is original:
            setattr(module, name, original)


def _replace() -> None:
    from torch.nn import utils

    for inner, name in _PLACES:
        module = getattr(utils, inner, None) if inner else utils
        original = getattr(module, name, None)
        if original is not None:
            setattr(module, name, _telling(original))
            _replaced.append((module, name, original))


def _telling(original: Callable[..., Any]) -> Callable[..., Any]:
    from torch.compiler import is_compiling

    @functools.wraps(original)
    def clip(
        parameters: Any, max_norm: float, total_norm: Any, *more: Any, **named: Any
    ) -> Any:  # as torch's own: positions and names
        if not is_compiling():
            given = [parameters] if hasattr(parameters, "grad") else list(parameters)
            parameters = given  # it may be a generator

            for one in tuple(_listeners):
                one.clipping(given, Factor(max_norm, total_norm))
        return original(parameters, max_norm, total_norm, *more, **named)

    return clip
