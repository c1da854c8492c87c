"""What the commands over runs share: column mappings, and how much of a run is read."""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from ..core import Series, Severity, SignalSet
from ..ingestion import open_source
from ._output import NEVER

__all__ = ["Selection", "judging_options", "mapping_of", "run_options"]


@dataclass(frozen=True)
class Selection:
    """Which names, steps and metrics of a run are read."""

    mapping: Mapping[str, str]
    since: int | None = None
    metrics: tuple[str, ...] = ()

    def read(self, path: str) -> SignalSet:
        """Read a run, narrowed to what was asked for; errors are those of `open_source`."""
        source: Any = sys.stdin.buffer if path == "-" else path
        return self.narrow(open_source(source, mapping=dict(self.mapping) or None))

    def narrow(self, signals: SignalSet) -> SignalSet:
        """Return the part of `signals` that was asked for."""
        if self.since is None and not self.metrics:
            return signals
        kept = []
        for one in signals.series:
            if self.metrics and not self._wanted(one):
                continue
            narrowed = one if self.since is None else one.between(self.since, None)
            if len(narrowed):
                kept.append(narrowed)
        return SignalSet(kept, signals.metadata, signals.unread)

    def _wanted(self, one: Series) -> bool:
        names = {str(one.key), one.key.name, one.source_name or one.key.name}
        return any(fnmatch.fnmatchcase(name, glob) for glob in self.metrics for name in names)


def mapping_of(given: Sequence[str]) -> dict[str, str]:
    """Return ``a=b,c=d`` as a mapping of a column to the name that it is read under."""
    found: dict[str, str] = {}
    for part in (piece for text in given for piece in text.split(",")):
        column, sign, name = (piece.strip() for piece in part.partition("="))
        if not sign or not column or not name:
            raise click.BadParameter(f"{part!r} is not COLUMN=NAME", param_hint="--map")
        if found.setdefault(column, name) != name:
            raise click.BadParameter(f"{column!r} is mapped twice", param_hint="--map")
    return found


def judging_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--fail-on``, ``--config`` and ``--sensitivity`` to a command."""
    for option in (
        click.option("--sensitivity", type=click.FloatRange(0.05, 20.0),
                     help="One knob for all thresholds: above 1 finds more and is wrong more "
                     "often (default: 1, or what the configuration says)."),
        click.option("--config", metavar="FILE.toml",
                     help="Detector parameters and facts of the run."),
        click.option("--fail-on", type=click.Choice([*(s.value for s in Severity), NEVER]),
                     default=None,
                     help="Exit 1 from this severity on (default: high, or what the "
                     "configuration says); 'never' to look only."),
    ):  # fmt: skip
        command = option(command)
    return command


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--map``, ``--since`` and ``--metrics`` to a command."""
    for option in (
        click.option("--metrics", multiple=True, metavar="GLOB",
                     help="Only quantities of these names; may be repeated."),
        click.option("--since", type=int, metavar="STEP", help="Only steps from here on."),
        click.option("--map", "mapping", multiple=True, metavar="COLUMN=NAME[,...]",
                     help="Read a column under another name, as worker=replica_id."),
    ):  # fmt: skip
        command = option(command)
    return command
