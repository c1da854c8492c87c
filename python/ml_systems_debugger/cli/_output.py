"""Where text goes: a file written whole or not at all, or standard output."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from ..core import reporters
from ..core.verdict import Verdict

EXIT_CLEAN, EXIT_FINDINGS, EXIT_USAGE, EXIT_INCOMPLETE = 0, 1, 2, 3

NEVER = "never"
VERDICT_FORMATS = ("sarif", "junit", "github")
"""Formats that know runs and checkpoints alike."""


def verdicts_text(verdicts: Sequence[Verdict], output_format: str, fail_on: str) -> str:
    """Return verdicts in a format of `VERDICT_FORMATS`."""
    threshold = None if fail_on == NEVER else fail_on
    text: str = reporters.get(output_format)().render_all(verdicts, fail_on=threshold)
    return text


class UsageFailure(click.ClickException):
    """A missing file, a permission or another I/O error: exit 2."""

    exit_code = EXIT_USAGE


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
    try:
        if path is None or path == "-":
            _to_stdout(parts)
        else:
            _to_file(parts, Path(path))
    except OSError as error:
        raise UsageFailure(f"{name}: cannot be written: {error.strerror or error}") from error


def _to_stdout(parts: Iterable[str]) -> None:
    try:
        for part in parts:
            click.echo(part, nl=False)
        click.echo()
    except BrokenPipeError:
        # Whoever reads has seen enough; the exit code still says the verdict. Nothing is left to
        # be flushed into the broken pipe at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _to_file(parts: Iterable[str], target: Path) -> None:
    if target.exists() and not target.is_file():  # /dev/stdout, a pipe: nothing to replace
        with target.open("w", encoding="utf-8") as out:
            out.writelines(parts)
            out.write("\n")
        return
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=target.resolve().parent, prefix=f".{target.name}.",
            delete=False,
        ) as out:  # fmt: skip
            temporary = Path(out.name)
            out.writelines(parts)
            out.write("\n")
            out.flush()
            os.fsync(out.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    except BaseException:  # an interrupt too: nothing half written is left behind
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
