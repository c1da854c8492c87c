"""Where text goes: a file written whole or not at all, or standard output."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Sequence
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


def write_output(text: str, path: str | None) -> None:
    """Write `text` to `path` (replaced only once all of it is on disk) or to stdout.

    Raises
    ------
    UsageFailure
        Where it cannot be written; an old file stays as it was.
    """
    if path is None or path == "-":
        click.echo(text)
        return
    target = Path(path)
    if target.exists() and not target.is_file():  # /dev/stdout, a pipe: nothing to replace
        target.write_text(text + "\n", encoding="utf-8")
        return
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=target.resolve().parent, prefix=f".{target.name}.",
            delete=False,
        ) as out:  # fmt: skip
            temporary = out.name
            out.write(text + "\n")
            out.flush()
            os.fsync(out.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(target)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
        raise UsageFailure(f"{target}: cannot be written: {error.strerror or error}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
