"""The monitor as a callback of the frameworks that run the loop.

Each module imports its framework; nothing here is imported with the package:

- ``integrations.transformers.MonitorCallback``: Hugging Face's `Trainer`
- ``integrations.lightning.MonitorCallback``: Lightning's `Trainer`
- ``integrations.keras.MonitorCallback``: `fit` of Keras 3
- ``integrations.jax.GradientWatch``: loops of JAX and Optax
"""

__all__: list[str] = []
