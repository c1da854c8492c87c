"""`GradientWatch`: the monitor in a loop of JAX and Optax."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..core import ConfigurationError, DebugReport, Finding
from ..monitoring import Monitor
from ._feed import missing
from ._jax_norms import leaves_of, moves, norms
from ._measured import Arrivals, Measured, Row

try:
    import jax
    import jax.numpy as jnp
    import optax  # type: ignore[import-untyped, unused-ignore]  # it has no types
except ImportError as error:  # pragma: no cover - said where it is absent
    raise missing("JAX and Optax", "jax optax") from error

__all__ = ["GradientWatch", "WatchState"]


class WatchState(NamedTuple):
    """What the transformation keeps: the number of the step, and the state it goes around."""

    count: Any
    inner: Any


class GradientWatch:
    """Watches a training whose step JAX compiles, through an Optax transformation.

    The norms of all gradients are computed inside the compiled step, on the device;
    a host callback gets one small vector. The loop is never held up for it: `step`
    judges what has come, the step that is under way at the next call.

    Parameters
    ----------
    skip_nonfinite : bool
        Leave out the step where a gradient is not finite: updates of zero, the state
        of the optimizer as it was. With `around` alone.
    update_every : int
        Steps between two measurements of how far the parameters move.
    **options
        As for `Monitor`, but for the model and the optimizer.

    Attributes
    ----------
    monitor : Monitor

    Examples
    --------
    >>> import jax, jax.numpy as jnp, optax
    >>> watch = GradientWatch(action="stop")
    >>> optimizer = watch.around(optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1)))
    >>> @jax.jit
    ... def step(params, state, x):
    ...     loss, grads = jax.value_and_grad(lambda p: jnp.log(p["w"] @ x))(params)
    ...     updates, state = optimizer.update(grads, state, params)
    ...     return optax.apply_updates(params, updates), state, loss
    >>> params = {"w": jnp.ones(3)}
    >>> state = optimizer.init(params)
    >>> for x in [jnp.ones(3), jnp.ones(3), jnp.zeros(3)]:
    ...     params, state, loss = step(params, state, x)
    ...     found = watch.step(loss=loss)
    >>> found += watch.close()
    >>> watch.should_stop, {f.onset_step for f in watch.monitor.findings}
    (True, {2})
    """

    def __init__(
        self, *, skip_nonfinite: bool = False, update_every: int = 10, **options: Any
    ) -> None:
        for name in ("model", "optimizer", "trace"):
            if name in options:
                raise ConfigurationError(f"{name} is for models of torch")
        self.monitor = Monitor(update_every=update_every, **options)
        self._skip, self._update_every = skip_nonfinite, update_every
        self._probe, self._arrivals = Measured(), Arrivals()
        self.monitor._probes.add(self._probe)
        self._told: deque[tuple[Any, dict[str, Any]]] = deque()
        self._error: Exception | None = None

    def around(self, optimizer: Any) -> Any:
        """Return an `optax.GradientTransformation` that is `optimizer`, watched.

        Gradients are seen as they come, before any clipping, and the updates as they
        leave. Steps are counted in its state, so that a restored one goes on.
        """
        inner = optax.with_extra_args_support(optimizer)

        def init(params: Any) -> WatchState:
            return WatchState(jnp.zeros([], jnp.int32), inner.init(params))

        def update(grads: Any, state: WatchState, params: Any = None, **more: Any) -> Any:
            try:
                names, leaves = leaves_of(grads)
                seen = norms(leaves) if leaves else None
            except Exception as error:  # noqa: BLE001 - training is not to end for this
                names, seen = (), None
                self._error = error
            skipped = None
            if self._skip and seen is not None:
                skipped = ~jnp.isfinite(seen).all()

                def left_out() -> Any:
                    return jax.tree.map(jnp.zeros_like, grads), state.inner

                def made() -> Any:
                    return inner.update(grads, state.inner, params, **more)

                if isinstance(skipped, jax.core.Tracer):
                    updates, kept = jax.lax.cond(skipped, left_out, made)
                else:
                    updates, kept = left_out() if skipped else made()
            else:
                updates, kept = inner.update(grads, state.inner, params, **more)
            if seen is not None:
                self._send(names, state.count, seen, skipped, params, updates)
            return updates, WatchState(state.count + 1, kept)

        return optax.GradientTransformationExtraArgs(init, update)

    def gradients(self) -> Any:
        """Return a member for `optax.chain` that changes nothing and sees what reaches it."""
        seen = self.around(optax.identity())

        def update(grads: Any, state: Any, params: Any = None, **more: Any) -> Any:
            del params  # no movements: what reaches it is no update yet
            return seen.update(grads, state, None, **more)

        return optax.GradientTransformationExtraArgs(seen.init, update)

    def step(self, loss: Any = None, **metrics: Any) -> list[Finding]:
        """Take that one update was made; return the findings that are new.

        Nothing is waited for but the step before this one.

        Parameters
        ----------
        loss : number or array of one
        metrics : numbers by name
        """
        self._told.append((loss, metrics))
        return self._take(1)

    @property
    def should_stop(self) -> bool:
        """Whether a finding asked for the run to end (``action="stop"``)."""
        return self.monitor.should_stop

    def report(self) -> DebugReport:
        """Return a report of the run so far; waits for the steps that are under way."""
        self._take(0)
        return self.monitor.report()

    def state_dict(self) -> dict[str, Any]:
        """Return JSON terms, for the training checkpoint; waits for the steps under way."""
        self._take(0)
        return self.monitor.state_dict()

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Take what `state_dict` gave."""
        self.monitor.load_state_dict(saved)

    def close(self) -> list[Finding]:
        """Judge what is left; return what is new."""
        return self._take(0) + self.monitor.close()

    def __enter__(self) -> GradientWatch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(
        self, names: tuple[str, ...], count: Any, seen: Any, skipped: Any, params: Any, updates: Any
    ) -> None:
        """Have the norms handed to the host when the step is computed."""
        try:
            moving = None
            before, moved = leaves_of(params)[1], leaves_of(updates)[1]
            if before and [x.shape for x in before] == [x.shape for x in moved]:
                moving = moves(count % self._update_every == 0, before, moved)
            jax.debug.callback(partial(self._arrived, names), count, seen, moving, skipped)
        except Exception as error:  # noqa: BLE001 - training is not to end for this
            self._error = error

    def _arrived(
        self, names: tuple[str, ...], count: Any, seen: Any, moving: Any, skipped: Any
    ) -> None:
        """Take what a device measured, in a thread of the runtime."""
        try:
            row = Row(names, np.asarray(seen, np.float64))
            if skipped is not None:
                row.skipped = bool(skipped)
            if moving is not None:
                row.moves(np.asarray(moving, np.float64))
            self._arrivals.put(int(count), row)
        except Exception as error:  # noqa: BLE001 - likewise
            self._error = error

    def _take(self, left: int) -> list[Finding]:
        """Judge steps until `left` are under way, and those of them that have come."""
        found: list[Finding] = []
        while len(self._told) > left or (self._told and self._arrivals and self._ready()):
            loss, metrics = self._told.popleft()
            if hasattr(loss, "block_until_ready"):
                self.monitor._troubles.safely("waiting for a step", loss.block_until_ready)
            if not self._arrivals or jax.local_device_count() > 1:
                barrier: Callable[[], None] = jax.effects_barrier
                barrier()
            step, row = self._arrivals.take() or (None, None)
            if self._error is not None:
                error, self._error = self._error, None
                self.monitor._troubles.failed("measuring gradients", error)
            if step is None:
                last = self.monitor._intake.last_step
                step = 0 if last is None else last + 1
            self._probe.row = row
            found += self.monitor.observe(step, loss=loss, **metrics)
        return found

    def _ready(self) -> bool:
        loss = self._told[0][0]
        return bool(getattr(loss, "is_ready", lambda: True)())
