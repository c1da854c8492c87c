"""What is wrong in the dumps of one job: who did not join, who calls something else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..core.shown import shown
from ._collectives import Call, Dump

__all__ = ["Fault", "faults_of", "group_members"]

_SAME_SIZES = frozenset({"all_reduce", "allreduce", "broadcast", "_all_gather_base"})
"""Collectives in which every rank gives as many elements as every other."""
_SHOWN_RANKS = 8


@dataclass(frozen=True, slots=True)
class Fault:
    """A collective that did not go as it should, in words and in parts.

    `kind` is ``not_joined``, ``not_started``, ``not_completed``, ``mismatch``
    or ``no_dump``; `ranks` are those at fault, `waiting` those that suffer.
    """

    kind: str
    group: str
    seq: int
    op: str
    message: str
    ranks: tuple[int, ...] = ()
    waiting: tuple[int, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


def group_members(dumps: Sequence[Dump], group: str) -> tuple[int, ...]:
    """Return the global ranks of a process group: as configured, else those that called in it."""
    for dump in dumps:
        if group in dump.members:
            return dump.members[group]
        if len(dump.members) == 1 and {call.group for call in dump.calls} <= {group}:
            return next(iter(dump.members.values()))  # gloo leaves the group's name out
    called = {d.rank for d in dumps for c in d.calls if c.group == group and d.rank is not None}
    return tuple(sorted(called))


def faults_of(dumps: Sequence[Dump], *, whole: bool) -> list[Fault]:
    """Return what is wrong in the dumps of one job.

    In each group the first collective that is not done is looked at: later
    ones wait for it. A rank whose last collective lies before it did not
    join. Where all joined, the ranks whose device had not started it hold the
    others up. What hangs at or behind a call that differs, and that is not done
    everywhere, hangs for it: that is told once, as the difference.

    Parameters
    ----------
    dumps : sequence of Dump
    whole : bool
        Whether the dumps of all ranks should be there: then one that lacks is
        a fault too.
    """
    by_rank = {dump.rank: dump for dump in dumps if dump.rank is not None}
    found: list[Fault] = []
    for group in dict.fromkeys(call.group for dump in dumps for call in dump.calls):
        members = group_members(dumps, group)
        differs = _mismatches(by_rank, group)
        hangs = _unfinished(by_rank or {-1: dumps[0]}, group, members)
        stuck = [one.seq for one in differs if _undone(by_rank, group, one.seq)]
        found += differs
        found += [one for one in hangs if not stuck or one.seq < min(stuck)]
        absent = tuple(rank for rank in members if rank not in by_rank)
        if whole and absent:
            told = f"no dump of {_listed(absent)} of {_shown_group(dumps, group)}"
            found.append(Fault("no_dump", group, 0, "", told, absent))
    return found


def _undone(by_rank: Mapping[int, Dump], group: str, seq: int) -> bool:
    return any(
        call.group == group and call.seq == seq and not call.p2p and not call.done
        for dump in by_rank.values()
        for call in dump.calls
    )


def _unfinished(by_rank: Mapping[int, Dump], group: str, members: tuple[int, ...]) -> list[Fault]:
    pending: dict[int, Call] = {}
    for rank, dump in by_rank.items():
        mine = [c for c in dump.calls if c.group == group and not c.done and not c.p2p]
        if mine:
            pending[rank] = min(mine, key=lambda call: call.seq)
    found = []
    if pending:
        seq = min(call.seq for call in pending.values())
        first = {rank: call for rank, call in pending.items() if call.seq == seq}
        found.append(_held_up(by_rank, group, members, seq, first))
    for rank, dump in by_rank.items():
        for call in dump.calls:
            if call.group == group and call.p2p and not call.done:
                told = f"{call.op} (number {call.seq}) was called and did not complete"
                found.append(
                    Fault("not_completed", group, call.seq, call.op, f"{told}{_at(call)}",
                          waiting=_known((rank,)))
                )  # fmt: skip
    return found


def _held_up(
    by_rank: Mapping[int, Dump],
    group: str,
    members: tuple[int, ...],
    seq: int,
    first: Mapping[int, Call],
) -> Fault:
    """Say of the first collective that is not done who did not join or start it."""
    call = next(iter(first.values()))
    waiting = _known(tuple(sorted(first)))
    what = f"collective {seq} ({call.op}) of {_shown_group(by_rank.values(), group)}"
    waits = (
        f"{_listed(waiting)} called it{_at(call)} and {_waits(waiting)}" if waiting else "it waits"
    )
    behind = {
        rank: last
        for rank in members
        if rank in by_rank and (last := _last(by_rank[rank], group)) < seq
    }
    if behind:
        ranks = tuple(sorted(behind))
        places = "; ".join(
            f"rank {rank} had come to {behind[rank]}{_where(by_rank[rank], group)}"
            for rank in ranks[:_SHOWN_RANKS]
        )
        told = f"{what}: {_listed(ranks)} did not join: {waits}; {places}"
        ends = {str(rank): behind[rank] for rank in ranks}
        return Fault("not_joined", group, seq, call.op, told, ranks, waiting, {"last": ends})
    started = tuple(sorted(r for r, c in first.items() if c.started is not None))
    idle = tuple(sorted(set(first) - set(started)))
    if started and idle:
        waits = f"{_listed(started)} {_waits(started)}"
        told = f"{what}: called by all, not started on {_listed(idle)}; {waits}"
        return Fault("not_started", group, seq, call.op, told, _known(idle), _known(started))
    told = f"{what} was not complete when the dump was taken: {waits}"
    return Fault("not_completed", group, seq, call.op, told, (), waiting)


def _last(dump: Dump, group: str) -> int:
    called = [call.seq for call in dump.calls if call.group == group and not call.p2p]
    return max([*called, dump.enqueued.get(group, -1)])


def _where(dump: Dump, group: str) -> str:
    called = [call for call in dump.calls if call.group == group and not call.p2p]
    return _at(max(called, key=lambda call: call.seq)) if called else ""


def _at(call: Call) -> str:
    return f" in {call.place}" if call.place else ""


def _mismatches(by_rank: Mapping[int, Dump], group: str) -> list[Fault]:
    """Return the first collective of a group in which ranks do not call the same."""
    seen: dict[int, dict[tuple[Any, ...], list[int]]] = {}
    for rank in sorted(by_rank):
        for call in by_rank[rank].calls:
            if call.group == group and not call.p2p:
                plain = call.op.rpartition(":")[2]
                shape = repr((call.sizes, call.dtypes)) if plain in _SAME_SIZES else ""
                seen.setdefault(call.seq, {}).setdefault((call.op, shape), []).append(rank)
    for seq in sorted(seen):
        kinds = seen[seq]
        # A rank may make several calls of one number where they are coalesced.
        whose = [rank for ranks in kinds.values() for rank in set(ranks)]
        if len(kinds) < 2 or len(whose) != len(set(whose)):
            continue
        most = max(kinds, key=lambda kind: len(kinds[kind]))
        # One against one: which of the two is wrong, nobody can say.
        tied = sum(len(ranks) == len(kinds[most]) for ranks in kinds.values()) > 1
        rest = (r for kind, ranks in kinds.items() if kind != most for r in ranks)
        odd = () if tied else tuple(sorted(rest))
        told = "; ".join(
            f"{_listed(tuple(ranks))} {_calls(ranks)} {shown(f'{op} of {size}' if size else op)}"
            for (op, size), ranks in kinds.items()
        )
        message = f"collective {seq} of {_shown_group(by_rank.values(), group)} differs: {told}"
        return [Fault("mismatch", group, seq, most[0], message, odd, tuple(kinds[most]))]
    return []


def _known(ranks: Iterable[int]) -> tuple[int, ...]:
    return tuple(rank for rank in ranks if rank >= 0)


def _listed(ranks: Sequence[int]) -> str:
    if not ranks:
        return "no rank"
    named = ", ".join(map(str, ranks[:_SHOWN_RANKS]))
    more = f" and {len(ranks) - _SHOWN_RANKS} more" if len(ranks) > _SHOWN_RANKS else ""
    return f"rank{'s' if len(ranks) > 1 else ''} {named}{more}"


def _calls(ranks: Sequence[int]) -> str:
    return "calls" if len(ranks) == 1 else "call"


def _waits(ranks: Sequence[int]) -> str:
    return "waits" if len(ranks) == 1 else "wait"


def _shown_group(dumps: Iterable[Dump], group: str) -> str:
    name = next((d.described[group] for d in dumps if group in d.described), shown(group))
    return f"process group {name}"
