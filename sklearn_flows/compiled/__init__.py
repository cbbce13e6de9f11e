"""Kernels compiled for the CPU: what queries and training compute, each in one call for many rows."""

from ._flow import compiled_flow, compiled_likelihood
from ._mixture import compiled_steps_of_mixtures
from ._trial import compiled_kernels_in_any_case, kernels_serve_in_any_case

__all__ = [
    "compiled_flow",
    "compiled_kernels_in_any_case",
    "compiled_likelihood",
    "compiled_steps_of_mixtures",
    "kernels_serve_in_any_case",
]
