"""``mlsd detectors`` and ``mlsd explain``: what there is, and how each decides."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Iterable

import click
from rich.console import Console
from rich.table import Table

from ..attribution import AttributionEngine
from ..checkpoints import explanation
from ..core import AttributionRule, word
from ..core import detectors as registered

__all__ = ["detectors", "explain"]


@click.command()
def detectors() -> None:
    """List the detectors: name, failure mode, what they read."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("name", "failure mode", "reads", "what it detects"):
        table.add_column(heading, overflow="fold")
    for name, cls in registered.items().items():
        reads = ", ".join(cls().get_required_signals()) or "everything"
        table.add_row(name, word(cls.failure_mode), reads, _first_line(cls))
    width = shutil.get_terminal_size((120, 24)).columns
    Console(width=max(width, 80), highlight=False).print(table)


@click.command()
@click.argument("name")
def explain(name: str) -> None:
    """Explain a detector, a failure mode, an attribution rule, a root cause or a code of `scan`.

    NAME is what `mlsd detectors` and the reports show.
    """
    rules = tuple(AttributionEngine().rules)
    by_name = {
        key: cls
        for detector, cls in registered.items().items()
        for key in (detector, cls.__name__, word(cls.failure_mode))
    }
    if name in by_name:
        cls = by_name[name]
        click.echo(f"{cls.name} ({cls.__name__}): {word(cls.failure_mode)}\n")
        click.echo(inspect.getdoc(cls) or "")
        _show(rule for rule in rules if rule.mode == cls.failure_mode)
        return
    if text := explanation(name):
        click.echo(text)
        return
    found = [r for r in rules if name.upper() == r.code or name in (word(r.cause), word(r.mode))]
    if not found:
        known = ", ".join(registered.names)
        raise click.UsageError(f"nothing is named {name!r}; detectors: {known}")
    _show(found)


def _show(rules: Iterable[AttributionRule]) -> None:
    for rule in rules:
        click.echo(f"\n{rule.code}: {word(rule.mode)} -> {word(rule.cause)} ({rule.strength:.0%})")
        click.echo(f"  {rule.hypothesis}")
        for condition in rule.when:
            click.echo(f"  when: {condition.says or condition}")
        for condition, weight in rule.raises:
            click.echo(f"  for ({weight:.0%}): {condition.says or condition}")
        for condition, weight in rule.lowers:
            click.echo(f"  against (odds x {weight:g}): {condition.says or condition}")
        for hint in rule.remediation:
            click.echo(f"  do: {hint}")
        if rule.source:
            click.echo(f"  source: {rule.source}")


def _first_line(cls: type[object]) -> str:
    return (inspect.getdoc(cls) or "").partition("\n")[0]
