"""`Verdict`: what tools that read findings need of a report, of a run or a checkpoint alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .frozen import FrozenDict
from .vocabulary import Severity

__all__ = ["Check", "Notice", "Place", "Rule", "Verdict"]


class Rule(NamedTuple):
    """What a notice is about: a stable code, a few words, and what to know and do."""

    code: str
    title: str
    help: str = ""


class Place(NamedTuple):
    """A place that is no line of a file: kind (``layer``, ``tensor``, ``replica``) and name."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Notice:
    """One finding, in the words of no door.

    Parameters
    ----------
    code : str
        Of its `Rule`.
    severity : Severity
    message : str
        One sentence, printable.
    check : str
        Name of the `Check` that it belongs to.
    identity : str
        The same for the same finding in the next report.
    file : str
        As the system names it; empty where it concerns no file.
    line : int or None
        From 1, where known.
    places : tuple of Place
    evidence : mapping
        Strict JSON terms.
    """

    code: str
    severity: Severity
    message: str
    check: str
    identity: str
    file: str = ""
    line: int | None = None
    places: tuple[Place, ...] = ()
    evidence: Mapping[str, Any] = field(default_factory=FrozenDict)


class Check(NamedTuple):
    """One thing that was looked at, or not: then `skipped` or `broken` says why."""

    name: str
    skipped: str = ""
    broken: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is said of one run or one checkpoint.

    Parameters
    ----------
    path : str
        As it was asked for.
    status : str
        Of the report behind it.
    summary : str
        One or two sentences, printable.
    rules : sequence of Rule
        Every rule that a notice refers to.
    notices : sequence of Notice
        Worst first.
    checks : sequence of Check
    unread : sequence of str
        What could not be read, printable.
    """

    path: str
    status: str
    summary: str
    rules: Sequence[Rule] = ()
    notices: Sequence[Notice] = ()
    checks: Sequence[Check] = ()
    unread: Sequence[str] = ()
