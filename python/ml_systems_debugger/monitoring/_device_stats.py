"""Norms, counts and extrema of many tensors on their device, by torch operations; no waiting."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

__all__ = ["norms_of", "plain", "stats_of", "wide"]


def wide(device: Any) -> Any:
    """Return the type that statistics are kept in on a device: float64 where it has that."""
    torch = import_module("torch")
    return torch.float32 if device.type == "mps" else torch.float64


def plain(tensor: Any) -> Any:
    """Return the values of a tensor that is on this device, as real floats of 16 bits or more."""
    torch = import_module("torch")
    tensor = tensor.detach()
    if hasattr(tensor, "to_local"):  # sharded: the part that is here
        tensor = tensor.to_local()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    if not tensor.is_floating_point() or tensor.element_size() < 2:
        tensor = tensor.float()
    return tensor


def norms_of(tensors: Sequence[Any]) -> Any:
    """Return the Euclidean norm of each tensor.

    Parameters
    ----------
    tensors : sequence of torch.Tensor
        As `plain` returns them, all on one device.

    Returns
    -------
    torch.Tensor, float64 [len(tensors)], float32 on a device without
        On that device. NaN where a tensor holds a NaN, else infinite where it holds an
        infinity; 0 for an empty one. Accumulated in that type, in which the squares of
        narrower ones neither overflow nor vanish; a tensor of that type itself is scaled
        by its largest value first.
    """
    torch = import_module("torch")
    kind = wide(tensors[0].device)
    found = [torch.zeros((), dtype=kind, device=one.device) for one in tensors]
    full = [at for at, one in enumerate(tensors) if one.numel()]
    narrow = [at for at in full if tensors[at].element_size() < kind.itemsize]
    if narrow:
        norms = torch._foreach_norm([tensors[at] for at in narrow], 2, dtype=kind)
        for at, norm in zip(narrow, norms, strict=True):
            found[at] = norm
    for at in full:
        if tensors[at].element_size() >= kind.itemsize:
            found[at] = _scaled_norm(tensors[at])
    return torch.stack(found)


def _scaled_norm(tensor: Any) -> Any:
    torch = import_module("torch")
    top = torch.linalg.vector_norm(tensor, float("inf"))
    # A power of two near the largest value: dividing by it rounds nothing that matters.
    usable = torch.isfinite(top) & (top > 0)
    _, exponent = torch.frexp(torch.where(usable, top, torch.ones_like(top)))
    half = torch.div(exponent, 2, rounding_mode="floor")  # 2^-exponent may not fit in one
    scaled = torch.ldexp(torch.ldexp(tensor, -half), half - exponent)
    norm = torch.ldexp(torch.ldexp(torch.linalg.vector_norm(scaled), half), exponent - half)
    return torch.where(usable, norm, top)


def stats_of(tensors: Sequence[Any]) -> Any:
    """Return norm, number of values that are not finite, and largest finite size, [3, n].

    The plain twin of the kernel: a pass over each tensor for every statistic.
    """
    torch = import_module("torch")
    norms = norms_of(tensors)
    bad, tops = torch.zeros_like(norms), torch.zeros_like(norms)
    for at, one in enumerate(tensors):
        if one.numel():
            finite = torch.isfinite(one)
            bad[at] = (~finite).sum()
            tops[at] = torch.where(finite, one, torch.zeros_like(one)).abs().max()
    return torch.stack([norms, bad, tops])
