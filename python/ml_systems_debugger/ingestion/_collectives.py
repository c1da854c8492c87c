"""Collective calls as the flight recorder of one rank noted them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..core import SchemaError
from ..core.shown import shown

__all__ = ["Call", "Dump", "parse_dump"]

_LIBRARY = re.compile(r"[/\\](?:torch|site-packages|dist-packages|multiprocessing)[/\\]|^<")


@dataclass(frozen=True, slots=True)
class Call:
    """One collective that one rank called.

    `created`, `started` and `completed` are seconds since the epoch, None
    where the recorder did not see it.
    """

    group: str
    seq: int
    op: str
    p2p: bool
    done: bool
    state: str
    sizes: Any
    dtypes: Any
    created: float | None
    started: float | None
    completed: float | None
    timeout: float | None
    place: str


@dataclass(slots=True)
class Dump:
    """What the recorder of one rank held."""

    source: str
    rank: int | None
    version: str
    calls: list[Call]
    members: Mapping[str, tuple[int, ...]]
    enqueued: Mapping[str, int]
    """The last collective that was called, by group; known even where its record is gone."""
    described: Mapping[str, str]
    """What the job calls each group, with its name."""


def parse_dump(document: Any, source: str, rank: int | None) -> Dump:
    """Take a dump apart.

    Parameters
    ----------
    document : object
        What the pickle or the JSON text held.
    source : str
        For messages.
    rank : int or None
        Whose dump it is; the dump itself does not say.

    Raises
    ------
    SchemaError
        If it is no dump, or an entry of it is malformed; with its number.
    """
    entries = document.get("entries", []) if isinstance(document, dict) else None
    if not isinstance(entries, (list, tuple)) or "version" not in document:
        raise SchemaError("no flight-recorder dump: no list of entries", source=source)
    calls: list[Call] = []
    described: dict[str, str] = {}
    try:
        for entry in entries:
            calls.append(_call(entry))
            described.setdefault(calls[-1].group, _description(entry))
    except (AttributeError, KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        what = shown(f"{type(error).__name__}: {error}")
        raise SchemaError(
            f"entry {len(calls)} is malformed ({what})", source=source, column="entries"
        ) from error
    status = _mapping(document.get("pg_status"))
    enqueued = {
        str(name): int(found["last_enqueued_collective"])
        for name, found in status.items()
        if str(_mapping(found).get("last_enqueued_collective")).lstrip("-").isdigit()
    }
    members = {}
    for name, found in _mapping(document.get("pg_config")).items():
        ranks = _ranks(_mapping(found).get("ranks"))
        if ranks:
            members[str(name)] = ranks
    return Dump(source, rank, shown(str(document["version"])), calls, members, enqueued, described)


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, dict) else {}


def _ranks(value: Any) -> tuple[int, ...]:
    """Return the ranks of a group: a list, or its text as the recorder writes it."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return ()
    if not isinstance(value, (list, tuple)):
        return ()
    return tuple(sorted(v for v in value if isinstance(v, int) and v >= 0))


def _call(entry: Any) -> Call:
    group = entry.get("process_group", ("", ""))
    p2p = bool(entry.get("is_p2p", False))
    seq = entry.get("collective_seq_id", entry.get("seq_id")) if not p2p else entry["p2p_seq_id"]
    state = str(entry.get("state", ""))
    if not 0 <= int(seq) < 1 << 62:
        raise ValueError(f"{seq} is no number of a collective")
    timeout = entry.get("timeout_ms")
    return Call(
        group=str(group[0]),
        seq=int(seq),
        op=shown(str(entry["profiling_name"])),
        p2p=p2p,
        done=state == "completed" or bool(entry.get("retired", False)),
        state=state,
        sizes=entry.get("input_sizes"),
        dtypes=entry.get("input_dtypes"),
        created=_seconds(entry.get("time_created_ns")),
        started=_seconds(entry.get("time_discovered_started_ns")),
        completed=_seconds(entry.get("time_discovered_completed_ns")),
        timeout=None if timeout is None else float(timeout) * 1e-3,
        place=_place(entry.get("frames")),
    )


def _description(entry: Any) -> str:
    parts = [str(part) for part in entry.get("process_group", ("",))[:2]]
    told = parts[1] if len(parts) > 1 and parts[1] not in ("", "undefined", parts[0]) else ""
    return shown(f"{parts[0]} ({told})") if told else shown(parts[0]) or "without a name"


def _seconds(nanoseconds: Any) -> float | None:
    # The JSON form writes 0 where the pickled one has None.
    return float(nanoseconds) * 1e-9 if nanoseconds else None


def _place(frames: Any) -> str:
    """Return the innermost frame outside of libraries, in words; "" where there is none."""
    for frame in frames if isinstance(frames, (list, tuple)) else ():
        named = _mapping(frame)
        file = str(named.get("filename", ""))
        if file and not _LIBRARY.search(file):
            return shown(f"{named.get('name', '')} at {file}:{named.get('line', '')}")
    return ""
