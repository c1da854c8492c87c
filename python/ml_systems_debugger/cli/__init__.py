"""The command `mlsd`. Each subcommand is a module of its own, imported when it is called."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import click

__all__ = ["main"]

_COMMANDS = {
    "diagnose": "diagnose:diagnose",
    "watch": "watch:watch",
    "ingest": "runs:ingest",
    "compare": "runs:compare",
    "detectors": "catalogue:detectors",
    "explain": "catalogue:explain",
    "scan": "scan:scan",
    "merge": "scan:merge",
    "diff": "scan:diff",
    "inspect": "scan:inspect",
    "skew": "skew:skew",
    "profile": "skew:profile",
    "evaluate": "evaluate:evaluate_runs",
    "calibrate": "evaluate:calibrate",
    "feedback": "evaluate:feedback",
}


class _Lazy(click.Group):
    """Imports a subcommand when it is asked for, so that ``mlsd --help`` stays quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        place = _COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, _, attribute = place.partition(":")
        command: click.Command = getattr(import_module(f"{__name__}.{module}"), attribute)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an interrupt that it does not handle is no verdict."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            from ._errors import EXIT_INCOMPLETE

            click.echo("mlsd: interrupted, nothing was judged", err=True)
            sys.exit(EXIT_INCOMPLETE)


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ml-systems-debugger", prog_name="mlsd")
def main() -> None:
    """Find what went wrong in an ML training run or a checkpoint, where, why, and what to do."""
