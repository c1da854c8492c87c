"""Processes of other ranks on this machine: whether they are there, stopped, or gone."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["identity", "state_of"]

_GONE, _STOPPED = "is gone", "is stopped"


def identity() -> str:
    """Return what tells this process from all others, or an empty text where that is unknown.

    That is the boot of the machine, the name space of process numbers, the number
    and the time of the start; Linux alone.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        space = Path("/proc/self/ns/pid").readlink()
        return f"{boot}|{space}|{os.getpid()}|{_stat(os.getpid())[1]}"
    except (OSError, IndexError, ValueError):
        return ""


def state_of(other: str, own: str) -> str:
    """Return "is gone", "is stopped", or an empty text: it runs, or nobody here can know."""
    parts, here = other.split("|"), own.split("|")
    if len(parts) != 4 or len(here) != 4 or parts[:2] != here[:2]:
        return ""
    try:
        state, started = _stat(int(parts[2]))
    except FileNotFoundError:
        return _GONE
    except (OSError, IndexError, ValueError):
        return ""
    if started != parts[3] or state in "ZXx":
        return _GONE
    return _STOPPED if state in "Tt" else ""


def _stat(pid: int) -> tuple[str, str]:
    text = Path(f"/proc/{pid}/stat").read_text()
    fields = text[text.rindex(")") + 2 :].split()  # the name may hold anything
    return fields[0], fields[19]
