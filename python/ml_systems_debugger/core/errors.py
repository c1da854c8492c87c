"""The errors that users meet; every one names what was wrong and where."""

from __future__ import annotations

__all__ = [
    "ConfigurationError",
    "IngestionError",
    "MLSystemsDebuggerError",
    "MissingDependencyError",
    "RegistryError",
    "SchemaError",
    "UnsupportedFormatError",
]


class MLSystemsDebuggerError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigurationError(MLSystemsDebuggerError, ValueError):
    """A parameter or a configuration file holds a value that makes no sense.

    The message names the parameter, the value and what would be accepted.
    """


class RegistryError(MLSystemsDebuggerError, ValueError):
    """A name was registered twice, is unknown, or its class breaks its contract."""


class MissingDependencyError(MLSystemsDebuggerError, ImportError):
    """An optional library is needed for this input and is not installed."""


class IngestionError(MLSystemsDebuggerError, ValueError):
    """Input that cannot be read, with the place and the value.

    Parameters
    ----------
    reason : str
        What is wrong, in one sentence without the place.
    source : str, optional
        File or object name.
    line : int, optional
        Line in the file, from 1.
    column : str, optional
        Column or field name.
    offset : int, optional
        Byte offset in the file, from 0.
    value : object, optional
        The offending value; shown shortened and escaped.
    """

    def __init__(
        self,
        reason: str,
        *,
        source: str | None = None,
        line: int | None = None,
        column: str | None = None,
        offset: int | None = None,
        value: object = None,
    ) -> None:
        self.reason = reason
        self.source = source
        self.line = line
        self.column = column
        self.offset = offset
        self.value = value
        super().__init__(self._message())

    def _message(self) -> str:
        place = [] if self.source is None else [self.source]
        if self.line is not None:
            place.append(f"line {self.line}")
        if self.column is not None:
            place.append(f"column {self.column!r}")
        if self.offset is not None:
            place.append(f"byte {self.offset}")
        text = f"{', '.join(place)}: {self.reason}" if place else self.reason
        if self.value is None:
            return text
        value = self.value
        long = isinstance(value, (str, bytes)) and len(value) > 80
        shown = repr(value[:80]) if long else repr(value)  # type: ignore[index]
        return f"{text} (got {shown if not long and len(shown) <= 80 else shown[:77] + '...'})"


class SchemaError(IngestionError):
    """Input of a known format whose content breaks the format's rules."""


class UnsupportedFormatError(IngestionError):
    """Content of no format that is known here."""
