"""What people say of findings, kept in the labels that evaluation and calibration read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ..core import ConfigurationError, failure_mode, root_cause, word
from ..core.files import written_whole

__all__ = ["record"]


def record(
    labels: str | os.PathLike[str],
    run: str,
    mode: str,
    *,
    confirmed: bool,
    cause: str | None = None,
    onset_step: int | None = None,
) -> dict[str, Any]:
    """Write into a file of labels that a finding was right or was none; return the run's label.

    Parameters
    ----------
    labels : path
        As `read_labels` reads; made where there is none, replaced whole.
    run : str
        File name of the run without its suffixes.
    mode : str
        The failure mode that was confirmed or dismissed.
    confirmed : bool
    cause : str, optional
        The true root cause, where it is known.
    onset_step : int, optional
        Where it really began.

    Raises
    ------
    ConfigurationError
        If a word is not known, or the file holds no labels.
    """
    name = word(failure_mode(mode))
    path = Path(labels)
    known: Any = {}
    if path.exists():
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path}: not valid JSON: {error}") from error
        if not isinstance(known, dict):
            raise ConfigurationError(f"{path}: an object of run names is needed")
    entry = dict(known.get(run) or {"outcome": "healthy", "accepted": []})
    accepted, dismissed = (set(entry.get(key, ())) for key in ("accepted", "dismissed"))
    if confirmed:
        accepted.add(name)
        dismissed.discard(name)
        if entry["outcome"] == "healthy":
            entry["outcome"] = name
        if onset_step is not None:
            entry["onset_step"] = onset_step
    else:
        dismissed.add(name)
        accepted.discard(name)
        if not accepted:
            entry["outcome"] = "healthy"
            entry.pop("onset_step", None)
    if cause is not None:
        causes = {*entry.get("causes", ()), word(root_cause(cause))}
        entry["causes"] = sorted(causes)
    entry["accepted"] = sorted(accepted)
    if dismissed:
        entry["dismissed"] = sorted(dismissed)
    else:
        entry.pop("dismissed", None)
    known[run] = entry
    with written_whole(path) as aside:
        aside.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return entry
