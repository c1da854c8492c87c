"""Twins of the native kernels in plain NumPy and Python: the oracle of the tests."""

from . import arrays, distributions, sequences, windows

__all__ = ["arrays", "distributions", "sequences", "windows"]
