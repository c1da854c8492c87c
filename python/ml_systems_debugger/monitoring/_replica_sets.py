"""Which parameters of a model are to be equal on which ranks, and their digests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..kernels.digest import digest, digest_many
from ._measures import part_of
from ._replica_record import Digests

__all__ = ["LAYOUT", "Compared"]

LAYOUT = 4
"""Words [4] that ranks tell each other once: two sets, the number of parameters, their names."""

_KINDS = 2  # sets of ranks whose roots fit into a record


class Compared:
    """The parameters of a model, each with the ranks that hold the same.

    A plain tensor is the same on all ranks of the group. A `DTensor` is the same
    along the dimensions of its mesh in which its placement is `Replicate`: its
    local part is compared with those of the ranks that differ from this one in
    these dimensions alone. Sharded dimensions are never compared, partial sums
    not at all. A record has room for the roots of two such sets of ranks, those
    with the most elements; parameters of a third are left out (`left_out`).

    Parameters
    ----------
    model : torch.nn.Module
    rank : int
        In the job.
    ranks : sequence of int
        Of the group, in order.
    """

    def __init__(self, model: Any, rank: int, ranks: Sequence[int]) -> None:
        self._model = model
        self._rank, self._ranks = rank, tuple(ranks)
        found = list(model.named_parameters())
        self.names = tuple(name for name, _ in found)
        self.tensors = tuple(tensor for _, tensor in found)
        kinds: dict[tuple[int, ...], list[int]] = {}
        for at, tensor in enumerate(self.tensors):
            peers = self._peers(tensor)
            if len(peers) > 1:
                kinds.setdefault(peers, []).append(at)
        sizes = {
            peers: sum(math.prod(self.tensors[at].shape) for at in places)
            for peers, places in kinds.items()
        }
        order = sorted(kinds, key=lambda peers: (-sizes[peers], kinds[peers][0]))
        self.sets = order[:_KINDS]
        self._places = [np.array(kinds[peers], np.intp) for peers in self.sets]
        self.left_out = sum(len(kinds[peers]) for peers in order[_KINDS:])

    def _peers(self, tensor: Any) -> tuple[int, ...]:
        """Return the ranks of the group, this one among them, that hold the same values."""
        mesh = getattr(tensor, "device_mesh", None)
        if mesh is None:
            return self._ranks
        place = mesh.get_coordinate()
        if place is None or any(one.is_partial() for one in tensor.placements):
            return ()
        same = tuple(
            slice(None) if one.is_replicate() else at
            for one, at in zip(tensor.placements, place, strict=True)
        )
        peers = mesh.mesh[same].reshape(-1).tolist()
        return tuple(sorted(set(peers) & set(self._ranks)))

    def stale(self) -> bool:
        """Whether the model has other parameters by now, as after it was sharded or moved."""
        now = list(self._model.parameters())
        return len(now) != len(self.tensors) or any(
            one is not held for one, held in zip(now, self.tensors, strict=True)
        )

    def digests(self) -> Digests:
        """Return the digest [parameters] of what this rank holds of each."""
        return np.array(digest_many([_local(tensor) for tensor in self.tensors]), np.uint64)

    def roots(self, digests: Digests) -> Digests:
        """Return one digest [2] over those of the parameters of each set; 0 where there is none."""
        made = np.zeros(_KINDS, np.uint64)
        for at, places in enumerate(self._places):
            made[at] = digest(np.ascontiguousarray(digests[places]))
        return made

    def layout(self) -> Digests:
        """Return the words that tell others which sets these are."""
        made = np.zeros(LAYOUT, np.uint64)
        names = digest(np.frombuffer("\n".join(self.names).encode(), np.uint8))
        for at, peers in enumerate(self.sets):
            # Ranks of other parameters, as of another pipeline stage, make a set of their own.
            made[at] = digest(np.array([*peers, names], np.uint64))
        made[_KINDS:] = len(self.names), names
        return made

    def kind_of(self) -> dict[int, int]:
        """Return which of the two sets each compared parameter belongs to."""
        return {int(at): kind for kind, places in enumerate(self._places) for at in places}


def _local(tensor: Any) -> Any:
    """Return the part of a tensor that lies on this rank, where the kernels can read it."""
    local = part_of(tensor).detach()
    if local.device.type != "cpu":
        local = local.cpu()
    return local if local.is_contiguous() else local.contiguous()
