"""Densities made of densities."""

from ._bagging import BaggingDensity
from ._stacking import StackingDensity

__all__ = ["BaggingDensity", "StackingDensity"]
