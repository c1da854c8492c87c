"""What a monitor asks beside the loop: the probes of a torch model and of its job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._torch_model import TorchModel
    from .monitor import Monitor
    from .replicas import ReplicaAgreement

__all__ = ["watch_model"]


def watch_model(
    model: Any,
    optimizer: Any,
    monitor: Monitor,
    *,
    skip_nonfinite: bool,
    activations: bool,
    replicas: bool | ReplicaAgreement,
) -> tuple[TorchModel | None, Any]:
    """Give a monitor its probes; return that of the gradients, and the optimizer under wrappers."""
    made: TorchModel | None = None
    if model is not None:
        from ._carried import CarriedGradients
        from ._optimizer_states import OptimizerStates
        from ._torch_model import TorchModel, bare_optimizer

        made = TorchModel(model, optimizer, monitor, skip_nonfinite)
        monitor._probes.add(made)
        if activations:
            from ._activations import Activations

            monitor._probes.add(Activations(model, monitor))
        if optimizer is not None:
            optimizer = bare_optimizer(optimizer)
            monitor._probes.add(CarriedGradients(model, optimizer, monitor))
            monitor._probes.add(OptimizerStates(model, optimizer, made, monitor))
    if replicas:
        from .replicas import ReplicaAgreement, Replicas

        agreed = Replicas(model, optimizer, monitor, ReplicaAgreement.of(replicas))
        monitor._probes.add(agreed)
        if monitor._intake.replica is None:
            monitor._intake.replica = agreed.rank
    return made, optimizer
