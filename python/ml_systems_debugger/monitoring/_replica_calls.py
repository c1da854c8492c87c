"""How many collective calls each rank has made on its groups: who is out of line in a hang."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module

__all__ = ["calls_made", "out_of_line"]


def calls_made() -> list[int]:
    """Return the calls so far on each process group of this rank, in order of their making.

    Ranks of one program make their groups in the same order, each those it belongs
    to: the same place is the same dimension of the mesh.
    """
    world = import_module("torch.distributed.distributed_c10d")._world
    return [int(group._get_sequence_number_for_group()) for group in world.pg_map]


def out_of_line(calls: Mapping[int, Sequence[int]]) -> tuple[int, str] | None:
    """Return the rank whose calls explain a hang, and how; None where no single one does.

    Calls of one program come in one order, so of two ranks one is ahead of the
    other on all groups, or level. A rank that is ahead of the others on one
    group and behind them on another has left a call out, or made one of its own:
    ``"order"``. Where the order holds and one rank is behind all others it is
    waited for: ``"behind"``.

    Parameters
    ----------
    calls : mapping of rank to calls [groups]
        Of three ranks at least; without the same number of groups nothing is said.

    Examples
    --------
    >>> out_of_line({0: [7, 20], 1: [7, 21], 2: [6, 22], 3: [7, 20]})
    (2, 'order')
    >>> out_of_line({0: [7, 20], 1: [7, 19], 2: [7, 20]})
    (1, 'behind')
    """
    if len(calls) < 3 or len({len(one) for one in calls.values()}) != 1:
        return None
    odd = {
        rank: sum(_crossed(own, other) for at, other in calls.items() if at != rank)
        for rank, own in calls.items()
    }
    others = len(calls) - 1
    crossed = [rank for rank, count in odd.items() if count]
    worst = [rank for rank, count in odd.items() if count == max(odd.values())]
    if crossed:
        # With it left out the order holds: every pair that crosses is one of its own.
        alone = len(worst) == 1 and sum(odd.values()) == 2 * odd[worst[0]]
        return (worst[0], "order") if alone and 2 * odd[worst[0]] > others else None
    for rank, own in calls.items():
        rest = [other for at, other in calls.items() if at != rank]
        if all(list(own) != list(other) and _up_to(own, other) for other in rest):
            return rank, "behind"
    return None


def _up_to(one: Sequence[int], other: Sequence[int]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True))


def _crossed(one: Sequence[int], other: Sequence[int]) -> bool:
    return not _up_to(one, other) and not _up_to(other, one)
