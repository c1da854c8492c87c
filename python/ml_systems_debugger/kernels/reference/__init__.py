"""Twins of the native kernels in plain NumPy and Python: the oracle of the tests."""

from . import arrays

__all__ = ["arrays"]
