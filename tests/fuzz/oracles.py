"""What a format's own library says of a file that a scan calls whole.

A scan that ends with exit code 0 promises that the file can be loaded, and that what
it looked at is what a loader sees: the same names, shapes and values. Here the
loader is asked, but about files with a finding that says what a loader would do
otherwise (code in a pickle, shards that are missing, ...).
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from damage import DamageError

from ml_systems_debugger import kernels
from ml_systems_debugger.checkpoints import CheckpointReport
from ml_systems_debugger.core import Severity

__all__ = ["contradicted"]

Loaded = Iterator[tuple[str, Any]]
DEEPSPEED = importlib.util.find_spec("deepspeed") is not None

STRUCTURE = {
    "duplicate_name", "pickle_global", "empty", "missing_shard", "extra_shard", "missing_tensor",
    "extra_tensor", "incomplete_tensor", "truncated", "expanded_view", "not_weights_only",
}  # fmt: skip
_EXACT = ("size", "nan", "posinf", "neginf", "zero", "min", "max", "absmax")


def contradicted(report: CheckpointReport, path: Path) -> None:
    """Raise DamageError where a file that ends with exit code 0 does not load, or to other values.

    Formats without a library that could be asked are passed over.
    """
    severe = any(f.severity >= Severity.HIGH for f in report.findings)
    if report.status.value == "incomplete" or severe:
        return
    if {f.code for f in report.findings} & STRUCTURE:
        return
    form = str(report.metadata["format"])
    load = LOADERS.get(form)
    if load is None:
        return
    try:
        loaded = dict(load(path))
    except BaseException as error:  # a CheckpointException of torch is no Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        if load is _deepspeed and "Unsupported operand" in str(error):
            return  # it loads with the whole of pickle, which is not done here
        raise DamageError(f"{form} is whole here, and refused by its library: {error!r}") from error
    ours = {tensor.name: tensor for tensor in report.tensors}
    if load is _deepspeed:
        if not loaded:  # its conversion does not know such files
            return
        # Files are under names of ours, the fp32 weights under those of theirs
        ours = {name: one for name, one in ours.items() if name.startswith("fp32.")}
        loaded = {name: loaded[name] for name in ours if name in loaded}
    if loaded.keys() != ours.keys():
        raise DamageError(f"{form}: {sorted(ours)} here, {sorted(loaded)} to its library")
    for name, value in loaded.items():
        _same(form, name, ours[name], value)


def _same(form: str, name: str, ours: Any, value: Any) -> None:
    if value is None:  # of blocks, whose values the library does not unpack
        return
    if tuple(ours.shape) != tuple(value.shape):
        raise DamageError(f"{form}: {name} is {ours.shape} here, {value.shape} to its library")
    told = kernels.tensor_stats(value)
    for part in _EXACT:
        mine, theirs = ours.stats[part], getattr(told, part)
        nothing = mine is None or mine != mine  # no finite value
        if mine != theirs and not (nothing and theirs != theirs):
            raise DamageError(f"{form}: {name}.{part} is {mine} here, {theirs} to its library")


def _safetensors(path: Path) -> Loaded:
    from safetensors.torch import load

    if path.name.endswith(".index.json"):
        wanted = json.loads(path.read_bytes())["weight_map"]
        shards = {file: load((path.parent / file).read_bytes()) for file in set(wanted.values())}
        yield from ((name, shards[file][name]) for name, file in wanted.items())
    else:
        yield from load(path.read_bytes()).items()


def _npy(path: Path) -> Loaded:
    yield path.stem, _native(np.load(path, allow_pickle=False))


def _npz(path: Path) -> Loaded:
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
        for name in archive.files:
            yield name.removesuffix(".npy"), _native(archive[name])


def _native(array: Any) -> Any:
    return np.ascontiguousarray(array.astype(array.dtype.newbyteorder("=")))


def _torch(path: Path) -> Loaded:
    import torch

    yield from _walked("", torch.load(path, map_location="cpu", weights_only=True))


def _walked(place: str, value: Any) -> Loaded:
    import torch

    if isinstance(value, torch.Tensor):
        yield place or "tensor", value.detach().contiguous()
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _walked(f"{place}.{key}" if place else str(key), inner)
    elif isinstance(value, (list, tuple)):
        for at, inner in enumerate(value):
            yield from _walked(f"{place}.{at}" if place else str(at), inner)


def _distributed(path: Path) -> Loaded:
    import torch
    from torch.distributed.checkpoint import FileSystemReader, load
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    entries = FileSystemReader(path).read_metadata().state_dict_metadata
    wanted = {
        name: torch.empty(one.size, dtype=one.properties.dtype)
        for name, one in entries.items() if isinstance(one, TensorStorageMetadata)
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is one process is what is meant
        load(wanted, checkpoint_id=path, no_dist=True)
    yield from wanted.items()


def _deepspeed(path: Path) -> Loaded:
    """Load every part, and put the fp32 weights together as DeepSpeed's own conversion does."""
    import torch

    step = path
    if (path / "latest").is_file():
        step = path / (path / "latest").read_text().strip()
    if not DEEPSPEED:
        for part in sorted(step.glob("*.pt")):
            torch.load(part, map_location="cpu", weights_only=True)
        return
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    from deepspeed.runtime.fp16 import loss_scaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils import zero_to_fp32
    from deepspeed.utils.tensor_fragment import fragment_address

    allowed: list[Any] = [loss_scaler.LossScaler, loss_scaler.DynamicLossScaler, ZeroStageEnum,
                          fragment_address]  # fmt: skip
    plain = torch.load

    def careful(*given: Any, **options: Any) -> Any:
        """Load what it loads with `weights_only=False`: files are damaged on purpose here."""
        return plain(*given, **{**options, "weights_only": True})

    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        torch.serialization.safe_globals(allowed),
        mock.patch.object(torch, "load", careful),
    ):
        for part in sorted(step.glob("*.pt")):
            torch.load(part, map_location="cpu")
        try:
            found = zero_to_fp32.get_fp32_state_dict_from_zero_checkpoint(
                str(step.parent), tag=step.name, exclude_frozen_parameters=True
            )
        except KeyError as error:  # older writers had not all the keys that it asks for
            if error.args[0] not in ("buffer_names", "shared_params", "param_shapes"):
                raise
            return
        except ValueError as error:  # its bfloat16 optimizer names no stage
            if not re.search("is not a (zero|model state) checkpoint", str(error)):
                raise
            return
    for name, value in found.items():
        yield f"fp32.{name}", value


def _gguf(path: Path) -> Loaded:
    import gguf

    for tensor in gguf.GGUFReader(path).tensors:
        plain = tensor.tensor_type.name in ("F32", "F16", "F64", "I8", "I16", "I32", "I64")
        shape = tuple(int(n) for n in reversed(tensor.shape.tolist()))
        yield tensor.name, np.array(tensor.data).reshape(shape) if plain else None


LOADERS: dict[str, Callable[[Path], Loaded]] = {
    "safetensors": _safetensors, "npy": _npy, "npz": _npz, "torch": _torch, "gguf": _gguf,
    "torch_distributed": _distributed, "deepspeed": _deepspeed,
}  # fmt: skip
