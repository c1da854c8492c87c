"""From a raw confidence to one that holds what it says, as learnt on labelled runs."""

from __future__ import annotations

import bisect
import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core import ConfigurationError

__all__ = [
    "ByEvidence", "Calibration", "Identity", "Isotonic", "Platt", "default_calibration",
    "load_calibration",
]  # fmt: skip

CALIBRATION_VERSION = "1.0"

Floats = npt.NDArray[np.float64]

_STEPS, _CLOSE, _RIDGE = 100, 1e-10, 1e-9  # of Newton's method


class Calibration(ABC):
    """A map of [0, 1] into itself that never falls, so that ranks stay as they are."""

    @abstractmethod
    def __call__(self, confidence: float) -> float:
        """Return the calibrated confidence."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return it in terms of JSON, as `load_calibration` reads it."""

    @property
    def narrow(self) -> Calibration:
        """What holds where only the loss, the learning rate and the gradient norm are logged."""
        return self

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Calibration:
        """Return what `to_dict` wrote.

        Raises
        ------
        ConfigurationError
            If it is of an unknown kind or version, or its numbers make no calibration.
        """
        version, kind = data.get("calibration_version"), data.get("kind")
        if version != CALIBRATION_VERSION:
            raise ConfigurationError(
                f"calibration_version is {version!r}, this release reads {CALIBRATION_VERSION!r}"
            )
        try:
            if kind == "identity":
                return Identity()
            if kind == "platt":
                return Platt(float(data["slope"]), float(data["offset"]))
            if kind == "isotonic":
                return Isotonic(
                    tuple(map(float, data["raw"])), tuple(map(float, data["calibrated"]))
                )
            if kind == "by_evidence":
                wide, narrow = (Calibration.from_dict(data[part]) for part in ("wide", "narrow"))
                return ByEvidence(wide, narrow)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(f"{kind} calibration: bad or missing {error}") from error
        raise ConfigurationError(
            f"kind of calibration is identity, platt, isotonic or by_evidence, got {kind!r}"
        )


@dataclass(frozen=True, slots=True)
class Identity(Calibration):
    """Leaves confidences as they are."""

    def __call__(self, confidence: float) -> float:
        """Return `confidence`."""
        return confidence

    def to_dict(self) -> dict[str, Any]:
        """Return it in terms of JSON."""
        return {"calibration_version": CALIBRATION_VERSION, "kind": "identity"}


@dataclass(frozen=True, slots=True)
class Platt(Calibration):
    """A logistic curve over the log odds: for few labels (Platt, 1999).

    Parameters
    ----------
    slope : float
        At least 0.
    offset : float
        In log odds.
    """

    slope: float
    offset: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.slope) and math.isfinite(self.offset) and self.slope >= 0):
            raise ConfigurationError(
                f"platt calibration: slope is at least 0 and both are finite, got slope "
                f"{self.slope} and offset {self.offset}"
            )

    @classmethod
    def fit(cls, confidences: Sequence[float], right: Sequence[bool]) -> Platt:
        """Learn from labelled runs, by Newton's method on the penalised likelihood.

        Parameters
        ----------
        confidences : sequence of float [n]
            Raw ones.
        right : sequence of bool [n]
            Whether each cause was the true one. As Platt does, they count as
            (n1 + 1) / (n1 + 2) and 1 / (n0 + 2), so that few labels claim little.

        Raises
        ------
        ConfigurationError
            If there are none, or not as many of the one as of the other.
        """
        raw, hits = _pairs(confidences, right)
        x = np.array([_log_odds(value) for value in raw])
        positive = float(hits.sum())
        target = np.where(hits > 0, (positive + 1) / (positive + 2), 1 / (len(hits) - positive + 2))
        slope, offset = 0.0, float(_log_odds(float(target.mean())))
        for _ in range(_STEPS):
            p = 1.0 / (1.0 + np.exp(-np.clip(slope * x + offset, -700, 700)))
            weight = p * (1.0 - p)
            # The small ridge keeps the step finite where all confidences are equal.
            hessian = np.array([[weight @ (x * x), weight @ x], [weight @ x, weight.sum()]])
            step = np.linalg.solve(
                hessian + _RIDGE * np.eye(2), np.array([(target - p) @ x, (target - p).sum()])
            )
            slope, offset = slope + float(step[0]), offset + float(step[1])
            if np.abs(step).max() < _CLOSE:
                break
        if slope < 0:  # worse than chance: the order must stay, so only the level is learnt
            return cls(0.0, _log_odds(float(target.mean())))
        return cls(slope, offset)

    def __call__(self, confidence: float) -> float:
        """Return the calibrated confidence; 0 and 1 count as 1e-6 from the ends."""
        odds = self.slope * _log_odds(confidence) + self.offset
        return 1.0 / (1.0 + math.exp(-min(max(odds, -700.0), 700.0)))

    def to_dict(self) -> dict[str, Any]:
        """Return it in terms of JSON."""
        return {
            "calibration_version": CALIBRATION_VERSION, "kind": "platt", "slope": self.slope,
            "offset": self.offset,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Isotonic(Calibration):
    """Straight lines between points that never fall: for many labels.

    Source: Zadrozny and Elkan, KDD 2002.

    Parameters
    ----------
    raw, calibrated : sequence of float [n]
        Points, `raw` rising, `calibrated` not falling, all in [0, 1]; beyond
        the first and the last the value stays.
    """

    raw: Sequence[float]
    calibrated: Sequence[float]

    def __post_init__(self) -> None:
        object.__setattr__(self, "raw", tuple(self.raw))
        object.__setattr__(self, "calibrated", tuple(self.calibrated))
        inside = all(0.0 <= value <= 1.0 for value in (*self.raw, *self.calibrated))
        rising = all(a < b for a, b in zip(self.raw, self.raw[1:], strict=False))
        held = all(a <= b for a, b in zip(self.calibrated, self.calibrated[1:], strict=False))
        same = len(self.raw) == len(self.calibrated) > 0
        if not (inside and rising and held and same):
            raise ConfigurationError(
                "isotonic calibration: raw must rise and calibrated not fall, as many of the one "
                f"as of the other, all from 0 to 1; got {self.raw} and {self.calibrated}"
            )

    @classmethod
    def fit(cls, confidences: Sequence[float], right: Sequence[bool]) -> Isotonic:
        """Learn from labelled runs, by pooling neighbours that would fall (Ayer et al., 1955).

        Parameters and errors are those of `Platt.fit`.
        """
        raw, hits = _pairs(confidences, right)
        blocks: list[tuple[float, float, float]] = []  # sum of confidences, of hits, number
        for value in np.unique(raw):
            same = raw == value
            blocks.append((float(value * same.sum()), float(hits[same].sum()), float(same.sum())))
            while (
                len(blocks) > 1 and blocks[-2][1] / blocks[-2][2] >= blocks[-1][1] / blocks[-1][2]
            ):
                x, y, n = blocks.pop()
                a, b, m = blocks.pop()
                blocks.append((a + x, b + y, m + n))
        return cls(tuple(min(x / n, 1.0) for x, _, n in blocks), tuple(y / n for _, y, n in blocks))

    def __call__(self, confidence: float) -> float:
        """Return the calibrated confidence."""
        at = bisect.bisect_right(self.raw, confidence)
        if at == 0:
            return self.calibrated[0]
        if at == len(self.raw):
            return self.calibrated[-1]
        left, right = self.raw[at - 1], self.raw[at]
        share = (confidence - left) / (right - left)
        low, high = self.calibrated[at - 1], self.calibrated[at]
        return low + share * (high - low)

    def to_dict(self) -> dict[str, Any]:
        """Return it in terms of JSON."""
        return {
            "calibration_version": CALIBRATION_VERSION, "kind": "isotonic",
            "raw": list(self.raw), "calibrated": list(self.calibrated),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class ByEvidence(Calibration):
    """One calibration for runs that log what is inside the model, another for those that do not.

    Of three curves many causes look alike: the same share of the odds is right less often.

    Parameters
    ----------
    wide : Calibration
        Where layers, updates, activations, inputs or loss scales are logged.
    few : Calibration
        Where a cause rests on the loss, the learning rate and the gradient norm
        alone, and nothing else was there to look at.
    """

    wide: Calibration
    few: Calibration

    @property
    def narrow(self) -> Calibration:
        """Return `few`."""
        return self.few

    def __call__(self, confidence: float) -> float:
        """Return what `wide` says."""
        return self.wide(confidence)

    def to_dict(self) -> dict[str, Any]:
        """Return it in terms of JSON."""
        return {
            "calibration_version": CALIBRATION_VERSION, "kind": "by_evidence",
            "wide": self.wide.to_dict(), "narrow": self.few.to_dict(),
        }  # fmt: skip


def _log_odds(confidence: float) -> float:
    held = min(max(confidence, 1e-6), 1.0 - 1e-6)
    return math.log(held / (1.0 - held))


def _pairs(confidences: Sequence[float], right: Sequence[bool]) -> tuple[Floats, Floats]:
    raw, hits = np.asarray(confidences, np.float64), np.asarray(right, np.float64)
    if raw.shape != hits.shape or raw.ndim != 1 or not len(raw):
        raise ConfigurationError(
            f"as many labels as confidences, at least one of each; got {hits.shape} and {raw.shape}"
        )
    if not bool(((raw >= 0.0) & (raw <= 1.0)).all()):
        raise ConfigurationError("confidences lie between 0 and 1")
    return raw, hits


def load_calibration(path: str | os.PathLike[str]) -> Calibration:
    """Read a calibration from a small JSON file.

    Raises
    ------
    ConfigurationError
        With the file's name, if it is no calibration.
    OSError
        If it cannot be read.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigurationError(f"{os.fspath(path)}: is no JSON: {error}") from error
    if not isinstance(data, dict):
        raise ConfigurationError(f"{os.fspath(path)}: a calibration is a JSON object")
    try:
        return Calibration.from_dict(data)
    except ConfigurationError as error:
        raise ConfigurationError(f"{os.fspath(path)}: {error}") from error


@cache
def default_calibration() -> Calibration:
    """Return the calibration that is shipped: learnt on the fault laboratory.

    ``default_calibration.json`` beside this module says on which families, from
    how many runs, and with which command. One's own runs teach a better one
    (``mlsd calibrate``).
    """
    return load_calibration(Path(__file__).with_name("default_calibration.json"))
