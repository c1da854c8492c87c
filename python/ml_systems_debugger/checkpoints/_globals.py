"""What is said of the globals in a pickle: which ones a loader would import or run."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from ..core import Severity
from ..core.pickles import Global
from ..core.shown import shown
from .finding import CheckpointFinding

__all__ = ["judge_globals"]

# What torch, NumPy and the standard library put into checkpoints of their own accord: data only.
_EXPECTED = {
    "collections.OrderedDict", "collections.defaultdict", "collections.Counter", "builtins.dict",
    "builtins.list", "builtins.set", "builtins.frozenset", "builtins.tuple", "builtins.slice",
    "builtins.complex", "builtins.bytearray", "builtins.int", "builtins.float", "builtins.str",
    "builtins.bool", "__builtin__.set", "__builtin__.list", "__builtin__.dict", "__builtin__.tuple",
    "__builtin__.frozenset", "__builtin__.object", "builtins.object", "copyreg._reconstructor",
    "copy_reg._reconstructor", "_codecs.encode", "numpy.dtype", "numpy.ndarray",
    "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar",
    "numpy._core.numeric._frombuffer", "numpy.core.numeric._frombuffer", "datetime.datetime",
    "datetime.timedelta", "datetime.date", "pathlib.PosixPath", "pathlib.PurePosixPath",
    "pathlib.WindowsPath", "pathlib._local.PosixPath", "torch.Size", "torch.device",
    "torch.serialization._get_layout", "torch._tensor._rebuild_from_type_v2", "torch.Tensor",
    "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer", "torch.storage.UntypedStorage",
    "torch.storage.TypedStorage", "torch.per_tensor_affine", "torch.per_channel_affine",
    "torch.distributed.checkpoint.filesystem._StorageInfo",
    "torch.distributed.checkpoint.filesystem._StoragePrefix", "argparse.Namespace",
}  # fmt: skip
# By their whole names: a prefix would let through what a module has imported, or the globals of a
# function, since the later protocols look up dotted names.
_EXPECTED |= {f"torch._utils._rebuild_{name}" for name in (
    "device_tensor_from_cpu_tensor", "device_tensor_from_numpy", "meta_tensor_no_storage",
    "nested_tensor", "parameter", "parameter_with_state", "qtensor", "sparse_tensor", "tensor",
    "tensor_v2", "tensor_v3", "wrapper_subclass", "xla_tensor",
)}  # fmt: skip
_EXPECTED |= {f"torch.distributed.checkpoint.metadata.{name}" for name in (
    "BytesStorageMetadata", "ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta",
    "TensorProperties", "TensorStorageMetadata", "_MEM_FORMAT_ENCODING",
)}  # fmt: skip

_NEVER_CALLED = {"torch.per_tensor_affine", "torch.per_channel_affine"}

# The standard library can run programs, open files and load code in more ways than a list could
# name; so all of it counts as that, but for these modules of plain values. Which group a global
# falls into only sets the severity: whatever is not expected above is reported.
_VALUE_MODULES = {
    "abc", "argparse", "array", "calendar", "collections", "dataclasses", "datetime", "decimal",
    "enum", "fractions", "ipaddress", "numbers", "pathlib", "random", "re", "string", "typing",
    "uuid", "zoneinfo",
}  # fmt: skip
_VALUE_NAMES = {
    "functools.partial", "io.BytesIO", "_io.BytesIO", "io.StringIO", "_io.StringIO",
    "logging.getLogger", "types.SimpleNamespace", "types.MappingProxyType",
}  # fmt: skip
_RUNNING_NAMES = {"torch.load", "torch.compile", "numpy.load", "numpy.fromfile", "numpy.memmap"}
_RUNNING_MODULES = {
    "__builtin__", "commands", "copy_reg", "copyreg extension", "urllib2", "httplib", "pip", "dill",
    "cloudpickle", "joblib", "requests", "aiohttp", "numpy.testing", "numpy.f2py", "torch.hub",
    "torch.jit", "torch.serialization", "torch.storage", "torch.utils.cpp_extension",
}  # fmt: skip
_TORCH_TYPES = {"Storage", "Tensor"}


def judge_globals(found: Iterable[Global], file: str) -> list[CheckpointFinding]:
    """Return one finding for each global that is no plain data, worst first."""
    findings = []
    for one in found:
        if _expected(one):
            continue
        dangerous = _can_run(one)
        severity = Severity.CRITICAL if dangerous else Severity.MEDIUM
        does = "call" if one.called else "import"
        findings.append(
            CheckpointFinding.of(
                "pickle_global",
                severity,
                f"{shown(file)}: loading it with pickle would {does} {shown(one.path)}; "
                f"it was not run here",
                file=shown(file),
                called=one.called,
                **{"global": shown(one.path)},
            )
        )
    return sorted(findings, key=lambda f: -f.severity.rank)


def _expected(one: Global) -> bool:
    if one.called and (one.path in _NEVER_CALLED or one.name.endswith("Storage")):
        return False
    if one.path in _EXPECTED:
        return True
    if "." in one.name:
        return False
    if one.module == "torch" and not one.called and one.path not in _RUNNING_NAMES:
        return True  # dtypes, layouts, storage types: attributes that are only looked up
    if one.module in ("torch", "torch.cuda"):
        return any(one.name.endswith(kind) for kind in _TORCH_TYPES)
    # NumPy 2 pickles dtype classes by name.
    return one.module in ("numpy.dtypes",) and one.name.endswith("DType")


def _can_run(one: Global) -> bool:
    """Whether a global is of a module that can run programs, open files or load code."""
    if one.path in _VALUE_NAMES:
        return False
    if one.path in _RUNNING_NAMES:
        return True
    inner = one.name.split(".")
    # `numpy` and `os.system`: reached through whatever module has imported it. Nothing that is
    # only data needs such a name, or one with underscores on both sides.
    if len(inner) > 1 and any(n in sys.stdlib_module_names or n.startswith("__") for n in inner):
        return True
    parts = one.module.split(".")
    if parts[0] in sys.stdlib_module_names:
        return parts[0] not in _VALUE_MODULES
    return any(".".join(parts[:n]) in _RUNNING_MODULES for n in range(1, len(parts) + 1))
