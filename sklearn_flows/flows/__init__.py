"""Normalizing flows: a base distribution and a composition of transforms (torch only)."""

from ._families import conditional_spline_flow, maf, realnvp, spline_flow
from ._flow import Flow

__all__ = ["Flow", "conditional_spline_flow", "maf", "realnvp", "spline_flow"]
