"""Norms of the leaves of a tree, computed by JAX where the arrays are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ._feed import missing

try:
    import jax
    import jax.numpy as jnp
except ImportError as error:  # pragma: no cover - said where it is absent
    raise missing("JAX", "jax") from error

__all__ = ["leaves_of", "moves", "norms"]

_SMALL, _LARGE = 1e-30, 1e37  # sums of squares that float32 holds with all its digits


def leaves_of(tree: Any) -> tuple[tuple[str, ...], list[Any]]:
    """Return names and leaves of a tree, the numbers with a fraction alone.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> leaves_of({"dense": {"w": jnp.ones(2)}, "steps": 3})[0]
    ('dense.w',)
    """
    found = [
        (".".join(_part(key) for key in path), jnp.asarray(leaf))
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    ]
    kept = [(name, leaf) for name, leaf in found if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return tuple(name for name, _ in kept), [leaf for _, leaf in kept]


def _part(key: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key).strip("[].'\"")


@jax.jit
def _norms(leaves: Sequence[Any]) -> Any:
    return jnp.stack([_norm(leaf) for leaf in leaves])


def norms(leaves: Sequence[Any]) -> Any:
    """Return the Euclidean norm of each leaf, float32 [leaves]; works under `jit`.

    NaN where a leaf holds a NaN, else infinite where it holds an infinity, and
    nowhere else: what overflows or underflows as a square is scaled first.
    """
    return _norms(leaves)


@jax.jit
def moves(due: Any, before: Sequence[Any], updates: Sequence[Any]) -> Any:
    """Return the norms of parameters and updates, float32 [2, leaves]; -1 where not due."""

    def measured() -> Any:
        return jnp.stack([_norms(before), _norms(updates)])

    return jax.lax.cond(due, measured, lambda: jnp.full((2, len(before)), -1.0, jnp.float32))


def _norm(x: Any) -> Any:
    x = jnp.abs(x).astype(jnp.float32 if x.dtype.itemsize < 8 else None)
    total = jnp.sum(x * x)

    def scaled() -> Any:
        top = jnp.max(x, initial=0.0)
        usual = jnp.isfinite(top) & (top > 0)
        part = jnp.where(usual, x / jnp.where(usual, top, 1.0), 0.0)
        found = jnp.where(usual, top * jnp.sqrt(jnp.sum(part * part)), top)
        return jnp.where(jnp.isnan(total), total, found)  # a maximum may pass over a NaN

    fits = (total > _SMALL) & (total < _LARGE)
    return jax.lax.cond(fits, lambda: jnp.sqrt(total), scaled).astype(jnp.float32)
