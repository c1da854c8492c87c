"""What a source says of itself: messages in its log, values that it hides, restarts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..core import DebugReport
from ._words import printable, shortened

__all__ = ["notes_of"]

_EACH = 3
_LONG = 240


def notes_of(report: DebugReport) -> list[str]:
    """Return the notes in a report's metadata, one sentence each.

    Of the messages of a log, the first one of each kind is told with its line
    and step, and how many there are of that kind.
    """
    metadata = report.metadata
    notes: list[str] = []
    for key in ("not_trustworthy", "absences", "order"):
        found = metadata.get(key)
        texts = [found] if isinstance(found, str) else _items(found)
        notes += [str(text) for text in texts[:_EACH]]
        if len(texts) > _EACH:
            notes.append(f"and {len(texts) - _EACH} more of this kind")
    for fault in _items(metadata.get("collective_faults"))[:_EACH]:
        # The others are findings in these very words; this one tells the places in the code.
        if isinstance(fault, Mapping) and fault.get("kind") == "not_joined":
            notes.append(str(fault.get("message")))
    notes += _messages(_items(metadata.get("log_events")), metadata.get("log_event_kinds"))
    return [shortened(printable(note), _LONG) for note in notes]


def _items(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else ()


def _messages(events: Sequence[Any], kinds: Any) -> Iterator[str]:
    told: set[str] = set()
    counts = kinds if isinstance(kinds, Mapping) else {}
    for event in events:
        if not isinstance(event, Mapping) or str(event.get("kind")) in told:
            continue
        kind = str(event.get("kind"))
        told.add(kind)
        step = f", step {event['step']}" if event.get("step") is not None else ""
        count = counts.get(kind)
        more = f" ({count} of this kind)" if isinstance(count, int) and count > 1 else ""
        words = kind.replace("_", " ")
        yield f"{words} at line {event.get('line')}{step}{more}: {event.get('text')}"
