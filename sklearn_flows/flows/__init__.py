"""Normalizing flows: a base distribution and a composition of transforms (torch only)."""

from ._families import maf, realnvp, spline_flow
from ._flow import Flow

__all__ = ["Flow", "maf", "realnvp", "spline_flow"]
