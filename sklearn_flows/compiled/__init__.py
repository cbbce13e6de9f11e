"""Kernels compiled for the CPU: a whole flow as one step of the tape."""

from ._flow import compiled_flow

__all__ = ["compiled_flow"]
