"""Finds what went wrong in an ML training run or a served model, where, why, and what to do."""
