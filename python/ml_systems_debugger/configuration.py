"""`Configuration`: parameters of detectors and facts of the run, from a TOML file or a mapping."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .attribution.calibration import Calibration, Identity, load_calibration
from .core import BaseDetector, ConfigurationError, FrozenDict, Severity, freeze
from .core import detectors as registered
from .core.sensitivity import LEAST_SENSITIVITY, MOST_SENSITIVITY, check_sensitivity

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Configuration"]

_KEYS = ("fail_on", "sensitivity", "calibration", "context", "detectors")


@dataclasses.dataclass(frozen=True, slots=True)
class Configuration:
    """What a user sets once for many runs.

    As TOML::

        fail_on = "medium"
        sensitivity = 1.5                  # finds more than 1.0 does, and is wrong more often
        calibration = "calibration.json"   # as `mlsd calibrate` wrote it

        [context]
        num_classes = 10

        [detectors.loss_plateau]
        enabled = false

        [detectors.gradient_explosion]
        min_ratio = 20.0

    Parameters
    ----------
    parameters : mapping
        Detector name to its constructor parameters; ``enabled = false`` leaves
        it out.
    context : mapping
        Facts of the run that are not in its signals.
    fail_on : Severity
        From which severity on the command fails.
    sensitivity : float
        From 0.05 to 20: 1.0 keeps the stated rates of false alarms, more finds
        more; see `BaseDetector.at_sensitivity`. Parameters that are set stay.
    sensitivities : mapping of str to float
        Of single detectors, beside that of all: as `mlsd calibrate` learnt them
        from healthy runs, read from the file of `calibration`.
    calibration : Calibration, optional
        Of the causes' confidences; in a file, the path of another, from there.
        Default: the shipped one, see `default_calibration`.

    Raises
    ------
    ConfigurationError
        For a key, detector, parameter or value that is not known, naming it.
    """

    parameters: FrozenDict = dataclasses.field(default_factory=FrozenDict)
    context: FrozenDict = dataclasses.field(default_factory=FrozenDict)
    fail_on: Severity = Severity.HIGH
    calibration: Calibration | None = None
    sensitivity: float = 1.0
    sensitivities: FrozenDict = dataclasses.field(default_factory=FrozenDict)

    def with_sensitivity(self, sensitivity: float | None) -> Configuration:
        """Return the same at another sensitivity; at its own for None."""
        if sensitivity is None:
            return self
        return dataclasses.replace(self, sensitivity=check_sensitivity(sensitivity))

    def uncalibrated(self) -> Configuration:
        """Return the same without a calibration, not even the shipped one: raw confidences."""
        return dataclasses.replace(self, calibration=Identity())

    @classmethod
    def of(
        cls, given: Configuration | Mapping[str, Any] | str | os.PathLike[str] | None
    ) -> Configuration:
        """Return `given` as a configuration: itself, a mapping, a TOML file's path, or None."""
        if isinstance(given, Configuration):
            return given
        if given is None:
            return cls()
        if isinstance(given, Mapping):
            return cls._checked(given, "configuration", Path())
        path = Path(given)
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path}: not valid TOML: {error}") from error
        return cls._checked(data, str(path), path.parent)

    @classmethod
    def _checked(cls, data: Mapping[str, Any], where: str, folder: Path) -> Configuration:
        for key in data:
            if key not in _KEYS:
                raise ConfigurationError(f"{where}: unknown key {key!r}; known: {', '.join(_KEYS)}")
        for key in ("context", "detectors"):
            if not isinstance(data.get(key, {}), Mapping):
                raise ConfigurationError(f"{where}: {key} is a table, got {data[key]!r}")
        try:
            fail_on = Severity(data.get("fail_on", "high"))
        except ValueError:
            words = ", ".join(s.value for s in Severity)
            raise ConfigurationError(
                f"{where}: fail_on is one of {words}, got {data['fail_on']!r}"
            ) from None
        calibration, sensitivities = _learnt(data.get("calibration"), where, folder)
        try:
            config = cls(
                freeze(data.get("detectors")), freeze(data.get("context")), fail_on, calibration,
                check_sensitivity(data.get("sensitivity", 1.0)), sensitivities,
            )  # fmt: skip
            config.detectors()
        except ConfigurationError as error:
            raise ConfigurationError(f"{where}: {error}") from error
        return config

    def _sensitivity_of(self, name: str) -> float:
        own = self.sensitivity * float(self.sensitivities.get(name, 1.0))
        return min(max(own, LEAST_SENSITIVITY), MOST_SENSITIVITY)

    def detectors(self) -> list[BaseDetector]:
        """Return every registered detector that is enabled, with its parameters set."""
        for name, given in self.parameters.items():
            if name not in registered:
                known = ", ".join(registered.names)
                raise ConfigurationError(f"no detector is named {name!r}; known: {known}")
            if not isinstance(given, Mapping):
                raise ConfigurationError(f"detectors.{name} is a table, got {given!r}")
        made = []
        for name, cls in registered.items().items():
            own: dict[str, Any] = dict(self.parameters.get(name, {}))
            enabled = own.pop("enabled", True)
            if not isinstance(enabled, bool):
                raise ConfigurationError(
                    f"detectors.{name}.enabled is true or false, got {enabled!r}"
                )
            if enabled:
                made.append(_made(name, cls, own).at_sensitivity(self._sensitivity_of(name)))
        return made


def _learnt(given: Any, where: str, folder: Path) -> tuple[Calibration | None, FrozenDict]:
    """Return the calibration of a file, or of a table, and the sensitivities beside it."""
    if given is None:
        return None, FrozenDict()
    if isinstance(given, Mapping):
        return Calibration.from_dict(given), _sensitivities(given, where)
    if not isinstance(given, str):
        raise ConfigurationError(f"{where}: calibration is the path of a file, got {given!r}")
    path = folder / given
    try:
        calibration = load_calibration(path)
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"{where}: calibration {given!r}: {error.strerror or error}"
        ) from error
    return calibration, _sensitivities(data, str(path))


def _sensitivities(data: Mapping[str, Any], where: str) -> FrozenDict:
    given = data.get("sensitivities", {})
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"{where}: sensitivities is a table of detectors, got {given!r}")
    for name, value in given.items():
        if name not in registered:
            raise ConfigurationError(f"{where}: sensitivities: no detector is named {name!r}")
        try:
            check_sensitivity(value)
        except ConfigurationError as error:
            raise ConfigurationError(f"{where}: sensitivities.{name}: {error}") from error
    return freeze(given)


def _made(name: str, cls: type[BaseDetector], given: dict[str, Any]) -> BaseDetector:
    fields: Mapping[str, Any] = getattr(cls, "__dataclass_fields__", {})
    known = [field.name for field in fields.values() if field.init]
    for parameter in given:
        if fields and parameter not in known:
            raise ConfigurationError(
                f"detectors.{name} has no parameter {parameter!r}; known: {', '.join(known)}"
            )
    try:
        return cls(**given)
    except (ConfigurationError, TypeError) as error:
        raise ConfigurationError(f"detectors.{name}: {error}") from error
