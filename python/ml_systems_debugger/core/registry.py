"""Registries: who offers which detector, ingestor, extractor, reporter under which name."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from .errors import RegistryError

__all__ = ["Registry", "detectors", "extractors", "ingestors", "reporters"]

T = TypeVar("T")


class Registry(Generic[T]):
    """Classes by name: built in, registered by hand, or from entry points.

    Built-in classes come with the import of their package, third-party ones
    from the entry-point group; both are loaded when first asked for. The
    mapping is read-only from outside; a second claimant of a name is an error
    that names both.

    Parameters
    ----------
    what : str
        What is registered, for messages.
    package : str
        Package whose import registers the built-in ones.
    group : str
        Entry-point group.
    """

    def __init__(self, what: str, package: str, group: str) -> None:
        self.what = what
        self.package = package
        self.group = group
        self._classes: dict[str, type[T]] = {}
        self._points: dict[str, EntryPoint] = {}
        self._loaded = False
        self._lock = threading.RLock()

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Return a class decorator that registers the class as `name`."""

        def add(cls: type[T]) -> type[T]:
            with self._lock:
                self._claim(name, cls)
            return cls

        return add

    def _claim(self, name: str, cls: type[T]) -> None:
        if not isinstance(cls, type):
            raise RegistryError(f"{self.what} {name!r} is a class, got {cls!r}")
        other = self._classes.get(name)
        if other is not None and _path(other) != _path(cls):
            raise RegistryError(
                f"{self.what} {name!r} is claimed by both {_path(other)} and {_path(cls)}"
            )
        point = self._points.get(name)
        if point is not None and not _leads_to(point, cls):
            raise RegistryError(
                f"{self.what} {name!r} is claimed by both {point.value} and {_path(cls)}"
            )
        cls.name = name  # type: ignore[attr-defined]  # one name everywhere
        self._classes[name] = cls

    def _load(self) -> None:
        if self._loaded:
            return
        # Outside the lock: an import holds the lock of its module and asks for ours when a
        # class registers itself, so asking in the other order here could wait for ever.
        import_module(self.package)
        with self._lock:
            if not self._loaded:
                self._find_points()
                self._loaded = True

    def _find_points(self) -> None:
        found: dict[str, EntryPoint] = {}
        for point in entry_points(group=self.group):
            rival = found.setdefault(point.name, point)
            if rival.value != point.value:
                raise RegistryError(
                    f"{self.what} {point.name!r} is claimed by both {rival.value} and {point.value}"
                )
            owner = self._classes.get(point.name)
            if owner is not None and not _leads_to(point, owner):
                raise RegistryError(
                    f"{self.what} {point.name!r} is claimed by both "
                    f"{_path(owner)} and {point.value}"
                )
        self._points = found

    def get(self, name: str) -> type[T]:
        """Return the class registered as `name`.

        Raises
        ------
        RegistryError
            If nothing is, or the entry point behind it does not load.
        """
        self._load()
        with self._lock:
            found = self._classes.get(name)
            if found is not None:
                return found
            point = self._points.get(name)
            if point is None:
                known = ", ".join(self.names) or "none"
                raise RegistryError(f"no {self.what} is named {name!r}; known: {known}")
        try:
            cls = point.load()  # an import: outside the lock, as in `_load`
        except Exception as error:
            raise RegistryError(
                f"{self.what} {name!r} from {point.value} does not load: "
                f"{type(error).__name__}: {error}"
            ) from error
        with self._lock:
            self._claim(name, cls)
            return self._classes[name]

    @property
    def names(self) -> tuple[str, ...]:
        """All names, sorted."""
        self._load()
        with self._lock:
            return tuple(sorted({*self._classes, *self._points}))

    def items(self) -> Mapping[str, type[T]]:
        """Return every name with its class, loading what is not loaded yet."""
        return {name: self.get(name) for name in self.names}

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def reload(self) -> None:
        """Look at the entry points again, after a distribution was installed."""
        with self._lock:
            self._points.clear()
            self._loaded = False


def _leads_to(point: EntryPoint, cls: type[Any]) -> bool:
    """Return whether an entry point means `cls`, perhaps through a package that re-exports it."""
    place = point.value.partition("[")[0].strip().replace(":", ".")
    if place == _path(cls):
        return True
    module = sys.modules.get(point.module)  # one that is not imported cannot hold it
    return getattr(module, point.attr, None) is cls


def _path(cls: type[Any]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


# The four extension points. `Any`: the base classes are above this module.
detectors: Registry[Any] = Registry(
    "detector", "ml_systems_debugger.detectors", "ml_systems_debugger.detectors"
)
ingestors: Registry[Any] = Registry(
    "ingestor", "ml_systems_debugger.ingestion", "ml_systems_debugger.ingestors"
)
extractors: Registry[Any] = Registry(
    "signal extractor", "ml_systems_debugger.signals", "ml_systems_debugger.signal_extractors"
)
reporters: Registry[Any] = Registry(
    "reporter", "ml_systems_debugger.reporting", "ml_systems_debugger.reporters"
)
