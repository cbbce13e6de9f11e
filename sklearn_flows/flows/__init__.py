"""Normalizing flows: a base distribution and a composition of transforms (torch only)."""

from ._families import conditional_spline_flow, iaf, maf, realnvp, spline_flow
from ._flow import Flow
from ._rows import Rows

__all__ = ["Flow", "Rows", "conditional_spline_flow", "iaf", "maf", "realnvp", "spline_flow"]
