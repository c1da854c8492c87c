"""What ends a command early: exit codes, and errors in terms of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import click

from ..core import ConfigurationError, IngestionError, MissingDependencyError

__all__ = [
    "EXIT_CLEAN",
    "EXIT_FINDINGS",
    "EXIT_INCOMPLETE",
    "EXIT_USAGE",
    "UsageFailure",
    "reading",
    "unreadable",
    "usage_failures",
    "writing",
]

EXIT_CLEAN, EXIT_FINDINGS, EXIT_USAGE, EXIT_INCOMPLETE = 0, 1, 2, 3


class UsageFailure(click.ClickException):
    """A missing file, a permission or another I/O error: exit 2."""

    exit_code = EXIT_USAGE


@contextmanager
def usage_failures(path: object = None, *, unnamed: object = None) -> Iterator[None]:
    """Make a failure of usage of what the user or the system got wrong.

    Parameters
    ----------
    path : object, optional
        What an error of the system is said of; by default the file that it names.
    unnamed : object, optional
        What it is said of where it names none.
    """
    try:
        yield
    except (ConfigurationError, MissingDependencyError) as error:
        raise UsageFailure(str(error)) from error
    except OSError as error:
        where = path or error.filename or unnamed
        raise UsageFailure(f"{where}: {error.strerror or error}") from error


@contextmanager
def reading(path: object = None, *, unnamed: object = None) -> Iterator[None]:
    """As `usage_failures`; content that cannot be read ends the command with exit 3."""
    try:
        with usage_failures(path, unnamed=unnamed):
            yield
    except IngestionError as error:
        unreadable(str(error))


@contextmanager
def writing(name: object) -> Iterator[None]:
    """Say of an error of the system that `name` cannot be written."""
    try:
        yield
    except OSError as error:
        raise UsageFailure(f"{name}: cannot be written: {error.strerror or error}") from error


def unreadable(message: str) -> NoReturn:
    """Say why nothing could be read, and exit 3."""
    click.echo(f"mlsd: {message}", err=True)
    sys.exit(EXIT_INCOMPLETE)
