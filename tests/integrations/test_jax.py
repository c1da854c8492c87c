"""The monitor in real loops of JAX and Optax."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="JAX is not installed")
optax = pytest.importorskip("optax", reason="Optax is not installed")

import jax.numpy as jnp  # noqa: E402

from ml_systems_debugger import ConfigurationError  # noqa: E402
from ml_systems_debugger.ingestion import open_source  # noqa: E402
from ml_systems_debugger.integrations._jax_norms import leaves_of, norms  # noqa: E402
from ml_systems_debugger.integrations.jax import GradientWatch  # noqa: E402
from ml_systems_debugger.monitoring import FaultFound, MonitorWarning  # noqa: E402

STEPS = 40


def net() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "body": {"w": jnp.array(rng.normal(size=(4, 8)), jnp.float32), "b": jnp.zeros(8)},
        "head": [jnp.array(rng.normal(size=(8, 1)), jnp.float32)],
    }


def loss_of(params: Any, x: Any, bad: Any) -> Any:
    hidden = jnp.tanh(x @ params["body"]["w"] + params["body"]["b"])
    loss = jnp.square((hidden @ params["head"][0])[:, 0] - x.sum(1)).mean()
    return loss + jnp.where(bad, jnp.nan, 0.0) * params["body"]["b"][0]


def whole_norm(tree: Any) -> Any:
    return jnp.sqrt(sum(jnp.square(x).sum() for x in jax.tree.leaves(tree)))


def trained(
    watch: GradientWatch, optimizer: Any, compiled: bool = True, bad: int | None = None,
    start: Any = None, steps: int = STEPS,
) -> tuple[Any, list[Any], list[float], list[float]]:  # fmt: skip
    """Train; return the last state, what was found at which call, losses, global norms."""
    rng = np.random.default_rng(1)

    def step(params: Any, state: Any, x: Any, bad: Any) -> Any:
        loss, grads = jax.value_and_grad(loss_of)(params, x, bad)
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        return params, state, loss, whole_norm(grads)

    if compiled:
        step = jax.jit(step)
    params = net()
    state = optimizer.init(params)
    if start is not None:
        params, state = start
    found, losses, whole = [], [], []
    for k in range(steps):
        x = jnp.array(rng.normal(size=(16, 4)), jnp.float32)
        params, state, loss, norm = step(params, state, x, k == bad)
        losses.append(loss)
        whole.append(norm)
        found += [(k, one) for one in watch.step(loss=loss, lr=1e-2)]
        if watch.should_stop:
            break
    found += [(steps, one) for one in watch.close()]
    return (params, state), found, [float(x) for x in losses], [float(x) for x in whole]


def recorded(path: Path) -> dict[str, Any]:
    return {str(one.key): one for one in open_source(path).series}


@pytest.mark.parametrize("compiled", [True, False])
def test_a_healthy_training_is_silent(compiled: bool, tmp_path: Path) -> None:
    path = tmp_path / "run.ring"
    watch = GradientWatch(action="none", recorder=str(path), strict=True)
    optimizer = watch.around(optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-2)))
    _, found, losses, whole = trained(watch, optimizer, compiled, steps=31 if compiled else 11)
    assert found == []
    series = recorded(path)
    assert series["loss"].steps.tolist() == list(range(len(losses)))
    assert series["loss"].values.tolist() == pytest.approx(losses)
    assert series["grad_norm"].values.tolist() == pytest.approx(whole, rel=1e-5)
    assert max(whole) > 1.0, "clipping comes behind"
    layers = {name.partition("/")[2] for name in series if name.startswith("grad_norm/")}
    assert layers == {"body.w", "body.b", "head.0"}
    assert series["update_ratio/body.w"].steps.tolist() == list(range(0, len(losses), 10))
    assert 1e-4 < series["update_ratio/body.w"].values[0] < 1e-1


def test_movements_are_those_of_the_updates(tmp_path: Path) -> None:
    path = tmp_path / "run.ring"
    watch = GradientWatch(action="none", recorder=str(path), update_every=1)
    trained(watch, watch.around(optax.sgd(0.5)), steps=3)
    series = recorded(path)
    for layer in ("body.w", "head.0"):
        want = 0.5 * series[f"grad_norm/{layer}"].values / series[f"param_norm/{layer}"].values
        assert series[f"update_ratio/{layer}"].values == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("compiled", [True, False])
def test_it_stops_behind_the_step(compiled: bool) -> None:
    watch = GradientWatch(action="stop")
    _, found, losses, _ = trained(watch, watch.around(optax.sgd(1e-2)), compiled, bad=3)
    assert min(one.onset_step for _, one in found) == 3
    assert len(losses) <= 5, "told with the step behind it at the latest"
    assert "nan_detected" in {str(one.failure_mode) for _, one in found}
    layers = {one.layer for _, one in found if one.layer}
    assert layers == {"body.b"}, "the loss of that step is bad by its own gradient alone"


def test_raise_ends_the_loop() -> None:
    watch = GradientWatch(action="raise")
    with pytest.raises(FaultFound):
        trained(watch, watch.around(optax.sgd(1e-2)), bad=12)


def test_a_member_of_a_chain_sees_what_reaches_it(tmp_path: Path) -> None:
    path = tmp_path / "run.ring"
    watch = GradientWatch(action="none", recorder=str(path))
    chain = optax.chain(optax.clip_by_global_norm(0.5), watch.gradients(), optax.sgd(1e-2))
    trained(watch, chain)
    series = recorded(path)
    assert series["grad_norm"].values.max() < 0.51
    assert not any(name.startswith("update_ratio") for name in series)


def test_steps_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "run.ring"
    watch = GradientWatch(action="none", recorder=str(path), skip_nonfinite=True)
    (params, state), found, _, _ = trained(watch, watch.around(optax.adam(1e-2)), bad=12)
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(params))
    assert int(state.count) == STEPS
    assert int(optax.tree_utils.tree_get(state.inner, "count")) == STEPS - 1
    assert recorded(path)["skipped_step"].values.tolist() == [float(k == 12) for k in range(STEPS)]
    assert {one.onset_step for _, one in found} == {12}


def test_a_restored_training_goes_on() -> None:
    first = GradientWatch(action="none")
    kept, *_ = trained(first, first.around(optax.sgd(1e-2)))
    saved = json.loads(json.dumps(first.state_dict()))
    second = GradientWatch(action="none")
    second.load_state_dict(saved)
    _, found, *_ = trained(second, second.around(optax.sgd(1e-2)), start=kept)
    assert found == []
    state = second.state_dict()
    assert (state["step"], state["segment"]) == (2 * STEPS - 1, 0)


def test_a_run_that_goes_back_is_a_restart() -> None:
    watch = GradientWatch(action="none")
    optimizer = watch.around(optax.sgd(1e-2))
    kept, *_ = trained(watch, optimizer, steps=20)
    trained(watch, optimizer, start=kept, steps=10)
    _, found, *_ = trained(watch, optimizer, start=kept, steps=10)
    state = watch.state_dict()
    assert (state["step"], state["segment"]) == (29, 1)
    assert found == []


def test_updates_of_several_batches(tmp_path: Path) -> None:
    """Inside `optax.MultiSteps` an update is what is seen; the loop tells a step for each."""
    path = tmp_path / "run.ring"
    watch = GradientWatch(action="none", recorder=str(path), strict=True)
    optimizer = optax.MultiSteps(watch.around(optax.sgd(1e-2)), every_k_schedule=4)
    params = net()
    state = optimizer.init(params)

    @jax.jit
    def step(params: Any, state: Any, x: Any) -> Any:
        loss, grads = jax.value_and_grad(loss_of)(params, x, False)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    rng = np.random.default_rng(1)
    for k in range(40):
        x = jnp.array(rng.normal(size=(16, 4)), jnp.float32)
        params, state, loss = step(params, state, x)
        if k % 4 == 3:
            watch.step(loss=loss)
    watch.close()
    assert recorded(path)["grad_norm"].steps.tolist() == list(range(10))
    assert recorded(path)["loss"].steps.tolist() == list(range(10))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_norms_are_those_of_a_reference(dtype: str) -> None:
    rng = np.random.default_rng(0)
    x = jnp.array(rng.normal(size=(33, 7)) * 1e-2, dtype)
    want = float(np.linalg.norm(np.asarray(x.astype(jnp.float32), np.float64)))
    assert float(jax.jit(norms)([x])[0]) == pytest.approx(want, rel=1e-5)


def test_norms_neither_overflow_nor_vanish_nor_lose_what_is_not_finite() -> None:
    cases = {1e30: 64e30, 1e-30: 64e-30, 0.0: 0.0, np.inf: np.inf, np.nan: np.nan}
    leaves = [jnp.full(4096, value, jnp.float32) for value in cases]
    mixed = jnp.array([np.inf, np.nan, 1.0])
    got = np.asarray(jax.jit(norms)([*leaves, mixed, jnp.zeros((0,))]))
    np.testing.assert_allclose(got, [*cases.values(), np.nan, 0.0], rtol=1e-5)


def test_leaves_that_count_are_left_out() -> None:
    names, leaves = leaves_of({"a": jnp.ones(2), "n": jnp.array(3), "none": None})
    assert (names, len(leaves)) == (("a",), 1)


def test_its_own_errors_do_not_end_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    from ml_systems_debugger.integrations import jax as module

    def boom(*_: Any) -> None:
        raise RuntimeError("planted")

    for name in ("leaves_of", "norms", "Row"):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, boom)
            watch = GradientWatch(action="none")
            with pytest.warns(MonitorWarning, match="planted"):
                _, _, losses, _ = trained(watch, watch.around(optax.sgd(1e-2)), steps=3)
            assert len(losses) == 3
            watch = GradientWatch(action="none", strict=True)
            with pytest.raises(RuntimeError, match="planted"):
                trained(watch, watch.around(optax.sgd(1e-2)), steps=3)


def test_what_is_for_torch_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="torch"):
        GradientWatch(model=object())


SEVERAL = """
import sys
import numpy as np, jax, jax.numpy as jnp, optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from ml_systems_debugger.integrations.jax import GradientWatch

kind, path = sys.argv[1:]
assert jax.local_device_count() == 2
watch = GradientWatch(action="none", recorder=path, strict=True)
optimizer = watch.around(optax.sgd(1e-2))
params = {"w": jnp.ones(4), "b": jnp.zeros(())}

def loss_of(p, x):
    return jnp.square(x @ p["w"] + p["b"] - x.sum(1)).mean()

def step(params, state, x):
    loss, grads = jax.value_and_grad(loss_of)(params, x)
    if kind != "sharded":
        loss, grads = jax.lax.pmean((loss, grads), "d")
    updates, state = optimizer.update(grads, state, params)
    norm = sum(jnp.square(x).sum() for x in jax.tree.leaves(grads)) ** 0.5
    return optax.apply_updates(params, updates), state, loss, norm

state = optimizer.init(params)
mesh = Mesh(np.array(jax.devices()), ("d",))
if kind == "pmap":
    run = jax.pmap(step, axis_name="d")
    params, state = jax.tree.map(lambda x: jnp.stack([x, x]), (params, state))
elif kind == "shard_map":
    run = jax.jit(jax.shard_map(
        step, mesh=mesh, in_specs=(P(), P(), P("d")), out_specs=P(), check_vma=False))
else:
    run = jax.jit(step)
rng, norms = np.random.default_rng(0), []
for k in range(12):
    x = jnp.array(rng.normal(size=(16, 4)), jnp.float32) + (jnp.inf if k == 9 else 0.0)
    if kind == "pmap":
        x = x.reshape(2, 8, 4)
    elif kind == "sharded":
        x = jax.device_put(x, NamedSharding(mesh, P("d")))
    params, state, loss, norm = run(params, state, x)
    norms.append(float(norm.ravel()[0]))
    watch.step(loss=loss.ravel()[0])
watch.close()
print([f.onset_step for f in watch.monitor.findings])
print(norms[:9])
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pmap", "shard_map", "sharded"])
def test_several_devices(kind: str, tmp_path: Path) -> None:
    """Each device calls back: a step stays one step, with the norms that are right."""
    path = tmp_path / "run.ring"
    env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
           "JAX_PLATFORMS": "cpu"}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SEVERAL, kind, str(path)],
        capture_output=True, text=True, env=env, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found, norms_told = (json.loads(line) for line in done.stdout.splitlines())
    assert found
    assert min(found) == 9
    series = recorded(path)
    assert series["loss"].steps.tolist() == list(range(12))
    assert series["grad_norm"].values[:9].tolist() == pytest.approx(norms_told, rel=1e-5)
