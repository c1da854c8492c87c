"""Half a million records as JSON: by columns and a template in place of an object each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from json.encoder import encode_basestring
from typing import Any

import numpy as np

from ..core.shown import shown
from .table import STATISTICS, VALUES, TensorTable

__all__ = ["table_terms", "table_texts"]

_CHUNK = 4096
_NAME, _DTYPE, _SHAPE, _FILE, _DIGEST = "@name", "@dtype", "@shape", "@file", "@digest"


def table_terms(table: TensorTable) -> Iterator[dict[str, Any]]:
    """Yield ``record.to_dict()`` of every tensor."""
    for index, stats, digest in _plain_rows(table):
        if stats is None:
            yield table.record(index).to_dict()
            continue
        info = table.tensors[index]
        yield {
            "name": shown(info.name, 4096),
            "dtype": info.dtype,
            "shape": list(info.shape),
            "file": shown(info.file),
            "stats": dict(zip(STATISTICS, stats, strict=True)),
            "first_nonfinite": None,
            "digest": f"{digest:016x}",
        }


def table_texts(table: TensorTable, indent: int | None, level: int) -> Iterator[str]:
    """Yield the JSON text of every tensor, as `json.dumps` writes it `level` deep in a document."""

    def dumped(terms: Any, depth: int) -> str:
        text = json.dumps(terms, indent=indent, allow_nan=False, ensure_ascii=False)
        # No text of JSON holds a newline: those that are there are the encoder's own.
        return text if indent is None else text.replace("\n", "\n" + " " * (indent * depth))

    sample = {
        "name": _NAME, "dtype": _DTYPE, "shape": _SHAPE, "file": _FILE,
        "stats": {n: f"@{n}" for n in STATISTICS}, "first_nonfinite": None, "digest": _DIGEST,
    }  # fmt: skip
    template = dumped(sample, level).replace(f'"{_DIGEST}"', '"%016x"')
    for mark in (_NAME, _DTYPE, _SHAPE, _FILE, *(f"@{n}" for n in STATISTICS)):
        template = template.replace(f'"{mark}"', "%s")
    shapes: dict[tuple[int, ...], str] = {}
    words: dict[str, str] = {}
    for index, stats, digest in _plain_rows(table):
        if stats is None:
            yield dumped(table.record(index).to_dict(), level)
            continue
        info = table.tensors[index]
        shape = shapes.get(info.shape)
        if shape is None:
            shape = shapes[info.shape] = dumped(list(info.shape), level + 1)
        for word in (info.dtype, info.file):
            if word not in words:
                words[word] = encode_basestring(shown(word))
        name = encode_basestring(shown(info.name, 4096))
        yield template % (name, words[info.dtype], shape, words[info.file], *stats, digest)


def _plain_rows(table: TensorTable) -> Iterator[tuple[int, tuple[Any, ...] | None, int]]:
    """Yield index, statistics and digest; statistics are None where a record says more or less."""
    narrow = table.narrow
    for start in range(0, len(table), _CHUNK):
        rows = table.columns[start : start + _CHUNK]
        plain = rows["scanned"] & rows["judged"] & (rows["first"] < 0) & ~narrow[start:][:_CHUNK]
        for name in VALUES:
            plain &= np.isfinite(rows[name])
        stats = zip(*(rows[name].tolist() for name in STATISTICS), strict=True)
        for at, (row, ok, digest) in enumerate(
            zip(stats, plain.tolist(), rows["digest"].tolist(), strict=True), start
        ):
            yield at, row if ok and at not in table.ranges else None, digest
