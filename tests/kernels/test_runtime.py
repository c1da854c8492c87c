"""Targets, threads, forks: what must hold wherever the kernels run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from ml_systems_debugger import kernels

ROOT = Path(__file__).parents[2]


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **env}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize("name", kernels.available_targets())
def test_the_environment_forces_a_target(name: str) -> None:
    done = python(
        "from ml_systems_debugger import kernels; print(kernels.target())", MLSD_TARGET=name
    )
    assert done.stdout.strip() == name, done.stderr


def test_an_unknown_target_is_an_error_that_names_it() -> None:
    done = python("import ml_systems_debugger.kernels", MLSD_TARGET="sse9")
    assert done.returncode != 0
    assert "sse9" in done.stderr
    with pytest.raises(ValueError, match="sse9"):
        kernels.set_target("sse9")


def test_never_more_threads_than_usable_cores() -> None:
    cores = len(os.sched_getaffinity(0))
    try:
        kernels.set_num_threads(10_000)
        # Fewer where a control group grants less: cpp/tests/test_threads.cpp has the quotas.
        assert 1 <= kernels.get_num_threads() <= cores
        kernels.set_num_threads(1)
        assert kernels.get_num_threads() == 1
        with pytest.raises(ValueError, match="-1"):
            kernels.set_num_threads(-1)
    finally:
        kernels.set_num_threads(0)
    one = "import os; os.sched_setaffinity(0, {0}); from ml_systems_debugger import kernels; "
    assert python(one + "print(kernels.get_num_threads())").stdout.strip() == "1"


FORKED = """
import multiprocessing
import numpy as np
from ml_systems_debugger import kernels

def work(expected):
    assert kernels.l2_norm(x) == expected
    assert kernels.get_num_threads() == 1

x = np.ones(8 * kernels.BLOCK, np.float32)
expected = kernels.l2_norm(x)  # the parent has run a parallel region
fork = multiprocessing.get_context("fork")
children = [fork.Process(target=work, args=(expected,)) for _ in range(2)]
for child in children:
    child.start()
for child in children:
    child.join(timeout=60)
    if child.is_alive():
        child.kill()
        child.join()
assert [child.exitcode for child in children] == [0, 0], children
print("done")
"""


def test_a_forked_child_does_not_hang() -> None:
    # In a process of its own: what other tests have loaded into this one may warn of a fork.
    done = python(FORKED)
    assert done.stdout.strip() == "done", done.stderr


LOADER = """
import torch
from torch.utils.data import DataLoader
from ml_systems_debugger import kernels

class Squares(torch.utils.data.Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, i):
        x = torch.full((3 * kernels.BLOCK,), float(i))
        return kernels.l2_norm(x), kernels.get_num_threads()

torch.zeros(1 << 22).sum()  # the parent has run parallel regions of both
kernels.l2_norm(torch.ones(8 * kernels.BLOCK))
found = list(DataLoader(Squares(), num_workers=2, multiprocessing_context="fork", timeout=60))
norms = [kernels.l2_norm(torch.full((3 * kernels.BLOCK,), float(i))) for i in range(4)]
assert [float(norm) for norm, _ in found] == norms
assert {int(threads) for _, threads in found} == {1}
print("done")
"""


@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
def test_workers_of_a_data_loader_do_not_hang() -> None:
    done = python(LOADER)
    assert done.stdout.strip() == "done", done.stderr


JAX = """
import jax.numpy as jnp
from ml_systems_debugger import kernels
from ml_systems_debugger.kernels._arrays import convert

for name in ("float32", "bfloat16", "float16", "float8_e4m3fn", "float8_e5m2", "int32"):
    x = jnp.array([[1.0, 2.0], [4.0, 8.0]]).astype(name)
    raw, _ = convert(x, None)
    assert raw.ctypes.data == x.unsafe_buffer_pointer(), f"{name} was copied"
    assert kernels.l2_norm(x) == 85**0.5, name
    assert kernels.tensor_stats(x).max == 8.0, name
    assert kernels.digest(x) == kernels.digest(raw), name
x = jnp.array([1.0, jnp.nan])
assert kernels.first_nonfinite(x) == 1
assert kernels.first_nonfinite(x.astype(jnp.bfloat16)) == 1
assert kernels.global_norm([x[:1], jnp.zeros((0, 3)), jnp.ones(())]) == 2**0.5
print("done")
"""


@pytest.mark.skipif(find_spec("jax") is None, reason="jax is not installed")
def test_jax_arrays_are_read_where_they_lie() -> None:
    # In a process of its own: one that has JAX in it warns at every fork.
    done = python(JAX, JAX_PLATFORMS="cpu", PYTHONWARNINGS="error")
    assert done.stdout.strip() == "done", done.stderr


def test_callers_in_many_threads_get_right_results() -> None:
    xs = [np.full(3 * kernels.BLOCK + i, i + 1, np.float32) for i in range(4)]
    want = [kernels.tensor_stats(x).l1 for x in xs]
    wrong: list[int] = []

    def call(at: int) -> None:
        wrong.extend(at for _ in range(5) if kernels.tensor_stats(xs[at]).l1 != want[at])

    threads = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(shutil.which("nm") is None, reason="nm is not installed")
def test_no_wide_code_leaves_its_target() -> None:
    """A weak symbol of a target's object that is not of its namespace could serve everybody."""
    objects = (ROOT / "build").glob("**/mlsd_kernels_*.dir/**/*.o")
    paths = [path for path in objects if "mlsd_kernels_baseline" not in str(path)]
    if not paths:
        pytest.skip("no object files: the extension was built outside the tree")
    for path in paths:
        target = (
            path.relative_to(ROOT).as_posix().partition("mlsd_kernels_")[2].partition(".dir")[0]
        )
        done = subprocess.run(["nm", "-C", str(path)], capture_output=True, text=True, check=True)
        for line in done.stdout.splitlines():
            kind, _, symbol = line[17:].partition(" ")
            if kind == "W" and f"mlsd::{target}::" not in symbol:
                pytest.fail(f"{path.name} of {target}: weak symbol {symbol}")


@pytest.mark.skipif(
    shutil.which("aarch64-linux-gnu-g++") is None, reason="no cross-compiler for arm64"
)
@pytest.mark.parametrize(
    "source", sorted((ROOT / "cpp" / "kernels").glob("*.cpp")), ids=lambda p: p.name
)
def test_the_sources_compile_for_arm64(source: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        ["aarch64-linux-gnu-g++", "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-psabi",
         "-DMLSD_TARGET_NAMESPACE=baseline", "-DMLSD_VECTOR_BYTES=16", f"-I{ROOT}/cpp/include",
         f"-I{ROOT}/cpp", "-c", str(source), "-o", str(tmp_path / "out.o")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
