"""Derived quantities, one per module."""
