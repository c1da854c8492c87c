"""The rules of the house: which way imports point, what an import costs, what is documented."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import ml_systems_debugger

PACKAGE = Path(ml_systems_debugger.__file__).parent
ROOT = Path(__file__).parents[1]

LAYERS = {
    "ingestion", "signals", "detectors", "attribution", "reporting", "checkpoints", "distributions",
}  # fmt: skip
ALLOWED = {
    "core": set(),
    "kernels": {"core", "_core"},
    **{layer: {"core", "kernels", "_core"} for layer in LAYERS},
    "integrations": {"monitoring", "core"},
}


def modules() -> Iterator[str]:
    for found in pkgutil.walk_packages([str(PACKAGE)], "ml_systems_debugger."):
        if not found.name.endswith(("__main__", "._core")):
            yield found.name


MODULES = sorted(modules())


def imported_module(name: str) -> ModuleType:
    """Import a module; that of a framework which is absent is skipped."""
    os.environ.setdefault("KERAS_BACKEND", "torch")  # without it Keras wants TensorFlow
    try:
        return importlib.import_module(name)
    except ml_systems_debugger.MissingDependencyError as error:
        kernel = name.endswith(".monitoring._device_kernel")
        assert kernel or ".integrations." in name, "nothing else may need a framework"
        pytest.skip(str(error))


def imported(path: Path) -> Iterator[str]:
    """Yield the top-level parts of this package that a file imports, as `core`, `kernels`."""
    inside = path.relative_to(PACKAGE).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = inside[: len(inside) - (node.level - 1)]
                full = (*base, *(node.module or "").split("."))
                names = [full] if node.module else [(*base, alias.name) for alias in node.names]
            elif (node.module or "").startswith("ml_systems_debugger"):
                names = [tuple((node.module or "").split(".")[1:])]
            else:
                continue
            for name in names:
                parts = [part for part in name if part]
                if parts:
                    yield parts[0]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("ml_systems_debugger."):
                    yield alias.name.split(".")[1]


@pytest.mark.parametrize("layer", sorted(ALLOWED))
def test_imports_point_one_way(layer: str) -> None:
    for path in (PACKAGE / layer).rglob("*.py"):
        for part in imported(path):
            assert part in ALLOWED[layer] | {layer}, f"{path.relative_to(PACKAGE)} imports {part}"


def test_no_module_is_long() -> None:
    for path in PACKAGE.rglob("*.py"):
        length = len(path.read_text(encoding="utf-8").splitlines())
        assert length <= 420, f"{path.relative_to(PACKAGE)} has {length} lines: is it one noun?"


def test_an_import_brings_no_heavy_library() -> None:
    code = "import sys, ml_systems_debugger; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    heavy = {
        "torch",
        "jax",
        "pandas",
        "polars",
        "pyarrow",
        "scipy",
        "sklearn",
        "matplotlib",
        "h5py",
    }
    assert not loaded & heavy


@pytest.mark.parametrize("name", MODULES)
def test_everything_public_is_documented(name: str) -> None:
    module = imported_module(name)
    assert module.__doc__, f"{name} has no docstring"
    for label, thing in public(module):
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert inspect.getdoc(thing), f"{name}.{label} has no docstring"


def public(module: ModuleType) -> Iterator[tuple[str, object]]:
    for label in getattr(module, "__all__", ()):
        thing = getattr(module, label)
        if getattr(thing, "__module__", None) == module.__name__:
            yield label, thing


@pytest.mark.parametrize("name", MODULES)
def test_doctests_run(name: str) -> None:
    module = imported_module(name)
    if ">>> import torch" in inspect.getsource(module):
        pytest.importorskip("torch", reason="its examples need torch")
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


@pytest.mark.parametrize("name", [name for name in MODULES if "._" not in name])
def test_methods_of_public_classes_are_documented(name: str) -> None:
    """Also of classes that `__all__` leaves out; a method may be documented by its contract."""
    module = imported_module(name)
    for label, thing in vars(module).items():
        if label.startswith("_") or getattr(thing, "__module__", "") != name:
            continue
        members = vars(thing) if inspect.isclass(thing) else {}
        for method, member in members.items():
            if inspect.isfunction(member) and not method.startswith("_"):
                documented = inspect.getdoc(getattr(thing, method))
                assert documented, f"{name}.{label}.{method} has no docstring"


def test_the_rule_of_imports_sees_a_breach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    (tmp_path / "core").mkdir()
    made_up = tmp_path / "core" / "made_up.py"
    made_up.write_text(
        "from ..detectors import x\nfrom .. import cli\nfrom .frozen import freeze\n"
        "import ml_systems_debugger.signals.x\nfrom ml_systems_debugger.reporting import y\n"
    )
    assert list(imported(made_up)) == ["detectors", "cli", "core", "signals", "reporting"]


def test_suppressions_carry_their_code() -> None:
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"# type: ignore(?!\[)", text), path
        assert not re.search(r"# noqa(?!:)", text), path


def test_no_registry_host_is_named() -> None:
    hosts = re.compile(
        r"pypi\.(?:org|python)|pythonhosted|deb\.debian|registry\.npmjs|conda\.anaconda"
    )
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    if not listed:
        pytest.skip("not a git checkout")
    for name in listed:
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".txt", ".cmake", ".cpp", ".hpp", ""} and (
            path.is_file() and path != Path(__file__)
        ):
            assert not hosts.search(path.read_text(encoding="utf-8", errors="replace")), name
