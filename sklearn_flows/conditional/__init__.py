"""Densities of targets that depend on features."""

from ._density import ConditionalFlowDensity

__all__ = ["ConditionalFlowDensity"]
