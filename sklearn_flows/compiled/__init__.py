"""Kernels compiled for the CPU: what queries and training compute, each in one call for many rows."""

from ._flow import compiled_flow, compiled_likelihood

__all__ = ["compiled_flow", "compiled_likelihood"]
