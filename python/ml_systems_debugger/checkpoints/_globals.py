"""What is said of the globals in a pickle: which ones a loader would import or run."""

from __future__ import annotations

from collections.abc import Iterable

from ..core import Severity
from ._names import shown
from ._pickle import Global
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
_EXPECTED_PREFIXES = ("torch._utils._rebuild_", "torch.distributed.checkpoint.metadata.")

# A call of any of these can run a program, open a file or a connection, or load code. It only sets
# the severity: whatever is expected nowhere above is reported, on this list or not.
_DANGEROUS_MODULES = {
    "os", "posix", "nt", "subprocess", "sys", "socket", "shutil", "runpy", "importlib", "pty",
    "webbrowser", "ctypes", "code", "codeop", "commands", "pickle", "_pickle", "dill",
    "cloudpickle", "marshal", "types",
    "asyncio", "multiprocessing", "threading", "signal", "tempfile", "pip",
    "requests", "urllib", "urllib2", "httplib", "http", "ftplib", "smtplib", "aiohttp", "timeit",
    "bdb", "pdb", "cProfile", "profile", "trace", "ensurepip", "venv", "zipimport", "imp",
    "pkgutil", "inspect",
    "gc", "operator", "functools", "builtins", "__builtin__", "copyreg extension",
    "torch.storage", "torch.serialization", "torch.hub", "torch.jit", "numpy.testing",
}  # fmt: skip
_TORCH_TYPES = {"Storage", "Tensor"}


def judge_globals(found: Iterable[Global], file: str) -> list[CheckpointFinding]:
    """Return one finding for each global that is no plain data, worst first."""
    findings = []
    for one in found:
        if _expected(one):
            continue
        dangerous = one.called and _dangerous(one.module)
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
    if one.path in _EXPECTED or one.path.startswith(_EXPECTED_PREFIXES):
        return True
    if one.module == "torch" and not one.called:
        return True  # dtypes, layouts, storage types: attributes that are only looked up
    if one.module in ("torch", "torch.cuda"):
        return any(one.name.endswith(kind) for kind in _TORCH_TYPES)
    # NumPy 2 pickles dtype classes by name.
    return one.module in ("numpy.dtypes",) and one.name.endswith("DType")


def _dangerous(module: str) -> bool:
    parts = module.split(".")
    return any(".".join(parts[:n]) in _DANGEROUS_MODULES for n in range(1, len(parts) + 1))
