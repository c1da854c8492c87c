"""From a path to its format, by content."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from ..core import SchemaError, UnsupportedFormatError
from ..core.shown import shown
from ._place import Place, place_of
from ._source import open_source
from ._tensor_list import TensorList
from .contract import CheckpointFormat, Options, formats

__all__ = ["find_format", "open_checkpoint", "read_tensors", "selected"]

_HEAD = 65536
_MAX_TENSORS = 20_000_000

# What is recognised and not read yet: magic bytes, then what to say.
_LATER = (
    (b"\x89HDF\r\n\x1a\n", "HDF5 (Keras, h5)"),
    (b"\x08", "ONNX"),
)


def find_format(path: Place) -> type[CheckpointFormat]:
    """Return the format of a file or a folder.

    Raises
    ------
    UnsupportedFormatError
        Where none is sure; HDF5, Orbax, ONNX and TensorFlow's own are named.
    OSError
        Where the path is missing or may not be read.
    """
    head = b""
    if not path.is_dir():
        with open_source(path, path.name) as source:
            head = source.read(0, min(source.size, _HEAD), "the first bytes")
    best: tuple[float, Any] = (0.0, None)
    for _, cls in sorted(formats.items().items()):
        sure = cls.sniff(path, head)
        if sure > best[0]:
            best = (sure, cls)
    if best[1] is not None:
        found: type[CheckpointFormat] = best[1]
        return found
    name = shown(str(path))
    later = _unsupported(path, head)
    if later:
        raise UnsupportedFormatError(f"{later} is not supported yet", source=name)
    if not path.is_dir() and not head:
        raise SchemaError("an empty file", source=name)
    known = ", ".join(formats.names)
    raise UnsupportedFormatError(f"no checkpoint that is known here ({known})", source=name)


def _unsupported(path: Place, head: bytes) -> str:
    if path.is_dir():
        names = {p.name for p in path.iterdir()}
        if names & {"_CHECKPOINT_METADATA", "manifest.ocdbt", "ocdbt.process_0", "_METADATA"}:
            return "Orbax"
        if {".zarray", ".zgroup", "zarr.json"} & names:
            return "zarr"
        if any(n.endswith(".index") for n in names):
            return "a TensorFlow checkpoint"
        return ""
    if head.startswith(_LATER[0][0]):
        return _LATER[0][1]
    if path.suffix == ".onnx" or (head[:1] == b"\x08" and b"onnx" in head[:256].lower()):
        return _LATER[1][1]
    if path.suffix == ".keras":
        return "Keras (.keras)"
    if path.suffix == ".index" or ".data-0000" in path.name:
        return "a TensorFlow checkpoint"
    return ""


def open_checkpoint(path: Any, options: Options | None = None) -> CheckpointFormat:
    """Return the reader for a path or a URL."""
    place = place_of(path, options.storage_options if options else None)
    return find_format(place)(place, options)


def read_tensors(reader: CheckpointFormat) -> TensorList:
    """Return the tensors of a checkpoint; content that breaks the format's rules is raised."""
    found = reader.tensors()
    if isinstance(found, TensorList):
        return found
    out = TensorList()
    for info in found:
        out.append(info)
        if len(out) > _MAX_TENSORS:
            raise SchemaError(f"more than {_MAX_TENSORS} tensors", source=shown(str(reader.path)))
    return out


def selected(name: str, include: tuple[str, ...], exclude: tuple[str, ...]) -> bool:
    """Return whether a name matches any of `include` (or none is given) and none of `exclude`."""
    if include and not any(fnmatchcase(name, p) for p in include):
        return False
    return not any(fnmatchcase(name, p) for p in exclude)
