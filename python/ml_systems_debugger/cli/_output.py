"""Where text goes: a file written whole or not at all, or standard output."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core import reporters
from ..core.files import written_whole
from ..core.verdict import Verdict
from ._errors import writing

NEVER = "never"
OUTPUT = click.option("--output", metavar="FILE", help="Write here instead of to standard output.")
VERDICT_FORMATS = ("sarif", "junit", "github")
"""Formats that know runs and checkpoints alike."""


if TYPE_CHECKING:
    _Choice = click.Choice[str]
else:  # click 8.1 has no types for it
    _Choice = click.Choice


class FormatName(_Choice):
    """A built-in format, or the name of a reporter that another package registers.

    Parameters
    ----------
    choices : sequence of str
        The built-in ones, which the help lists.
    of_verdicts : bool
        Whether a registered one must write verdicts, as those of checkpoints.
    """

    def __init__(self, choices: Sequence[str], *, of_verdicts: bool = False) -> None:
        super().__init__(choices)
        self.of_verdicts = of_verdicts

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the name; registered reporters are looked for only where none is built in."""
        foreign = value not in self.choices and value in reporters
        if foreign and (not self.of_verdicts or writes_verdicts(value)):
            return value
        return super().convert(value, param, ctx)


def writes_verdicts(output_format: str) -> bool:
    """Return whether a format is written from verdicts, of runs and checkpoints alike."""
    if output_format in VERDICT_FORMATS:
        return True
    return output_format in reporters and hasattr(reporters.get(output_format), "render_all")


def verdicts_text(verdicts: Sequence[Verdict], output_format: str, fail_on: str) -> str:
    """Return verdicts in a format that `writes_verdicts`."""
    threshold = None if fail_on == NEVER else fail_on
    text: str = reporters.get(output_format)().render_all(verdicts, fail_on=threshold)
    return text


def output_options(*formats: str, say: str | None = None) -> Callable[..., Any]:
    """Return what adds ``--format`` (as ``form``), the first by default, and ``--output``."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        chosen = click.option("--format", "form", type=click.Choice(formats), default=formats[0],
                              show_default=True, help=say)  # fmt: skip
        return chosen(OUTPUT(command))

    return decorate


def write_output(text: str | Iterable[str], path: str | None) -> None:
    """Write `text`, whole or in parts, to stdout or to `path`.

    A file is replaced only once all of it is on disk.

    Raises
    ------
    UsageFailure
        Where it cannot be written; an old file stays as it was.
    """
    name = "standard output" if path is None or path == "-" else path
    parts = [text] if isinstance(text, str) else text
    with writing(name):
        if path is None or path == "-":
            _to_stdout(parts)
        else:
            _to_file(parts, Path(path))


def _to_stdout(parts: Iterable[str]) -> None:
    try:
        for part in parts:
            click.echo(part, nl=False)
        click.echo()
    except OSError as error:
        # Nothing is left to be flushed at the end: Python would fail once more, with code 120.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        # Whoever reads a pipe has seen enough; the exit code still says the verdict.
        if not isinstance(error, BrokenPipeError):
            raise


def _to_file(parts: Iterable[str], target: Path) -> None:
    if target.exists() and not target.is_file():  # /dev/stdout, a pipe: nothing to replace
        with target.open("w", encoding="utf-8") as out:
            out.writelines(parts)
            out.write("\n")
        return
    with written_whole(target) as aside, aside.open("w", encoding="utf-8") as out:
        out.writelines(parts)
        out.write("\n")
