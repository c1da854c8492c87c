"""How far each replica came in the collective calls of its group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core import FailureMode, Finding, SeriesKind, Severity, SignalSet
from ._straggler_findings import ident

__all__ = ["follow_calls", "follow_parted", "not_joined"]


def follow_calls(groups: dict[str, Any], chunk: SignalSet) -> None:
    """Keep the last call of every replica, and whether it was seen to complete."""
    for one in chunk.select("collective_seq", "collective_completed"):
        if one.key.replica_id is None or not len(one):
            continue
        place = one.key._replace(replica_id=None, name="collective_seq")
        group = groups.setdefault(ident(place), {"replicas": {}, "layer": one.key.layer})
        fresh = {"name": one.key.replica_id, "call": None, "completed": None}
        known = group["replicas"].setdefault(repr(one.key.replica_id), fresh)
        if one.key.name == "collective_seq":
            known["call"] = int(one.steps[-1])
        else:
            known["completed"] = [int(one.steps[-1]), float(one.values[-1])]


def follow_parted(parted: dict[str, int], chunk: SignalSet) -> None:
    """Keep the first call that differs between replicas, by the replica that is told of it.

    Where nobody can say whose is wrong it stands for all of them, under ``None``.
    """
    for one in chunk.select("log_event_kind", kind=SeriesKind.TEXT):
        for step, kind in zip(one.steps.tolist(), one.values, strict=True):
            if kind == "collective_mismatch":
                place = repr(one.key.replica_id)
                parted[place] = min(step, parted.get(place, step))


def not_joined(
    groups: dict[str, Any], detector: str, parted: Mapping[str, int] | None = None
) -> list[Finding]:
    """Return a finding for every replica that has not called what others wait in.

    One whose calls are known to differ (`parted`) hangs elsewhere for that: it is
    no lost worker, and `collective_fault` tells of it.
    """
    known_to_part = parted or {}
    found: list[Finding] = []
    for text, group in sorted(groups.items()):
        known = [one for one in group["replicas"].values() if one["call"] is not None]
        if len(known) < 2:
            continue
        last = max(one["call"] for one in known)
        waiting = [
            one["name"]
            for one in known
            if one["call"] == last
            and one["completed"] is not None
            and one["completed"][0] == last
            and one["completed"][1] == 0.0
        ]
        behind = [
            one for one in known
            if one["call"] < last
            and not any(
                known_to_part.get(place, one["call"] + 2) <= one["call"] + 1
                for place in (repr(one["name"]), "None")
            )
        ]  # fmt: skip
        if not waiting:
            continue
        found += [_finding(text, one, waiting, last, len(known), detector) for one in behind]
    return found


def _finding(
    text: str, one: dict[str, Any], waiting: list[Any], last: int, replicas: int, detector: str
) -> Finding:
    call, name = one["call"], one["name"]
    return Finding(
        FailureMode.PARTIAL_WORKER_FAILURE,
        Severity.HIGH,
        0.9,
        call + 1,
        None,
        None,
        name,
        f"replica {name} last called collective {call} of {text}; "
        f"replicas {', '.join(map(str, waiting[:8]))} wait in {last}",
        {
            "rule": "did_not_join", "series": text, "quantity": "collective_seq",
            "quantities": ("collective_seq",), "replicas": replicas, "last_call": call,
            "waiting": tuple(waiting[:64]), "waits_in": last, "onset_step": call + 1,
            "onset_low": call, "onset_high": call + 1, "goes_on": True,
        },
        f"{detector}:{text}:{name!r}:did_not_join",
    )  # fmt: skip
