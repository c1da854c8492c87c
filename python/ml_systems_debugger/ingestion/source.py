"""`open_source`: whatever it is, find who can read it. `find_runs`: the runs in a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core import (
    BaseIngestor,
    IngestionError,
    SchemaError,
    Signal,
    SignalSet,
    UnsupportedFormatError,
    ingestors,
)
from ._bytes import ByteSource, is_bytes_like
from .arrow import ArrowIngestor
from .flight_recorder import FlightRecorderIngestor, dump_files
from .metrics import MetricIngestor
from .mlflow import MLflowIngestor, is_run_folder
from .tensorboard import TensorBoardIngestor, event_files
from .trace import TraceIngestor, trace_files

__all__ = ["find_runs", "is_run_data", "open_source"]

_NO_RUN_DATA = frozenset(
    {
        ".py", ".pyi", ".ipynb", ".c", ".cc", ".cpp", ".h", ".hpp", ".cu", ".java", ".js", ".ts",
        ".go", ".rs", ".sh", ".md", ".rst", ".html", ".css", ".yaml", ".yml", ".toml", ".ini",
        ".cfg", ".lock", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".pdf",
    }
)  # fmt: skip
"""Files that speak of metrics (code, documents) without holding any; passed
over in a folder, read when they are named."""

_SURE = 0.2

_FOLDERS: tuple[tuple[Callable[[str | os.PathLike[str]], list[Path]], type[BaseIngestor]], ...] = (
    (event_files, TensorBoardIngestor),
    (dump_files, FlightRecorderIngestor),
    (trace_files, TraceIngestor),
)
"""What finds the files in a folder that make one run together, and who reads that folder."""

_MAGIC = (
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a zip archive (a torch checkpoint is one too)"),
    (b"\x7fELF", "a program"),
    (b"SQLite format 3", "an SQLite database"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array file"),
    (b"\x80", "a pickle"),
)


def open_source(source: Any, *, mapping: Mapping[str, str] | None = None) -> SignalSet:
    """Read any source whole; who can read it is decided by its content.

    Parameters
    ----------
    source : object
        A path, ``-`` for standard input, bytes, a file object, the folder of
        one run, rows, columns, arrays, a frame, signals or a `SignalSet`.
    mapping : mapping of str to str, optional
        Column name to the name it should be read under.

    Returns
    -------
    SignalSet
        With the parts that could not be read in `SignalSet.unread`.

    Raises
    ------
    UnsupportedFormatError
        If nobody can read it; says what it looks like and what is supported.
    SchemaError
        If it breaks its format's rules; with file, line, column and value.
    OSError
        If it cannot be opened or read.

    Examples
    --------
    >>> len(open_source([{"step": 10, "loss": 0.5}, {"step": 20, "loss": 0.4}]))
    2
    """
    if isinstance(source, SignalSet):
        return source
    if is_bytes_like(source):
        return _open_bytes(source, mapping)
    if _are_signals(source):
        return SignalSet.from_signals(source)
    for ingestor in _made(mapping):
        if _takes_objects(ingestor) and ingestor.validate_schema(source):
            return SignalSet.of(ingestor.ingest(source))
    return MetricIngestor(mapping).ingest(source)  # says what it cannot read


def _are_signals(source: Any) -> bool:
    if isinstance(source, Sequence):
        return any(isinstance(item, Signal) for item in source)
    return isinstance(source, Iterable) and hasattr(source, "__next__")


def _takes_objects(ingestor: BaseIngestor) -> bool:
    return type(ingestor).validate_schema is not BaseIngestor.validate_schema


def _made(mapping: Mapping[str, str] | None) -> list[BaseIngestor]:
    mapped = (MetricIngestor, ArrowIngestor)
    return [cls(mapping) if cls in mapped else cls() for cls in ingestors.items().values()]


def _open_bytes(source: Any, mapping: Mapping[str, str] | None) -> SignalSet:
    path = None
    if isinstance(source, (str, os.PathLike)) and source != "-":
        path = Path(source)
        if path.is_dir():
            return _open_folder(path, mapping)
    with ByteSource.of(source) as opened:
        head = opened.head()
        ingestor = best_ingestor(head, opened.name, mapping)
        if ingestor is None:
            raise refusal(head, opened)
        return SignalSet.of(ingestor.ingest(opened if path is None else path))


def best_ingestor(head: bytes, name: str, mapping: Mapping[str, str] | None) -> BaseIngestor | None:
    base = os.path.basename(name)  # noqa: PTH119 - may be no path at all
    scored = [(ingestor.sniff(head, base), ingestor) for ingestor in _made(mapping)]
    best = max(scored, key=lambda pair: pair[0], default=None)
    return best[1] if best is not None and best[0] > 0 else None


def refusal(head: bytes, opened: ByteSource) -> IngestionError:
    if not head.strip():
        damage = "; ".join(opened.damage)
        return SchemaError(
            f"nothing to read ({damage})" if damage else "the file is empty", source=opened.name
        )
    looks = next((what for magic, what in _MAGIC if head.startswith(magic)), None)
    if looks is None:
        text = b"\0" not in head[:4096]
        looks = "text without metrics" if text else "binary data of an unknown kind"
        if text and head.lstrip()[:1] in (b"{", b"["):
            looks = "JSON without rows or columns of metrics"
    return UnsupportedFormatError(
        f"no supported run data; it looks like {looks}. Supported: {', '.join(ingestors.names)}",
        source=opened.name,
        value=bytes(head[:40]),
    )


def _open_folder(path: Path, mapping: Mapping[str, str] | None) -> SignalSet:
    runs = find_runs(path)
    if runs == [path]:
        return SignalSet.of(_reader_of(path).ingest(path))
    if not runs:
        raise UnsupportedFormatError("no run data in this folder", source=str(path))
    if len(runs) > 1:
        shown = ", ".join(str(run.relative_to(path)) for run in runs[:5])
        more = f" and {len(runs) - 5} more" if len(runs) > 5 else ""
        raise UnsupportedFormatError(
            f"a folder of {len(runs)} runs ({shown}{more}); name one of them", source=str(path)
        )
    return open_source(runs[0], mapping=mapping)


def _reader_of(folder: Path) -> BaseIngestor:
    """Return who reads a folder that is one run."""
    if is_run_folder(folder):
        return MLflowIngestor()
    return next(reader() for files, reader in _FOLDERS if len(files(folder)) > 1)


def find_runs(path: str | os.PathLike[str]) -> list[Path]:
    """Return the runs below a folder, sorted: the files that some ingestor can read.

    Several TensorBoard event files side by side are one run: their folder; so
    are the flight-recorder dumps and the traces of several ranks, and the
    folder of a run in an MLflow file store.

    Hidden files and folders, code and documents are passed over; links to
    folders are not followed.

    Raises
    ------
    OSError
        If a folder or file cannot be read.
    """
    if not Path(path).is_dir():
        return [Path(path)]
    found: list[Path] = []
    for folder, folders, files in os.walk(path, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        if is_run_folder(Path(folder)):
            found.append(Path(folder))
            folders.clear()
            continue
        for name in files:
            file = Path(folder, name)
            if name.startswith(".") or file.suffix.lower() in _NO_RUN_DATA or not file.is_file():
                continue
            if _readable(file):
                found.append(file)
        for together, _ in _FOLDERS:
            if len(parts := together(folder)) > 1:
                found = [file for file in found if file not in parts]
                if not any(file.parent == Path(folder) for file in found):
                    found.append(Path(folder))
                else:
                    found += parts
    return sorted(found)


def is_run_data(path: str | os.PathLike[str]) -> bool:
    """Return whether some ingestor reads a file, by its content.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    return Path(path).is_file() and _readable(Path(path))


def _readable(file: Path) -> bool:
    with ByteSource(file) as opened:
        try:
            head = opened.head()
        except IngestionError:  # compressed in a way that is not read: no run that we know
            return False
        best = best_ingestor(head, opened.name, None)
    if best is None:
        return False
    # Text of any kind may be a log: then one line of measurements must be in it.
    unsure = best.sniff(head, file.name) < _SURE
    return not unsure or best.validate_schema(file)


def _raise(error: OSError) -> None:
    raise error
