"""Normalizing flows: a base distribution and a composition of transforms (torch only)."""

from ._families import conditional_spline_flow, continuous_flow, glow, iaf, maf, realnvp, spline_flow, starts_smooth
from ._flow import Flow
from ._images import glow_of_images, realnvp_of_images
from ._rows import Rows

__all__ = [
    "Flow",
    "Rows",
    "conditional_spline_flow",
    "continuous_flow",
    "glow",
    "glow_of_images",
    "iaf",
    "maf",
    "realnvp",
    "realnvp_of_images",
    "spline_flow",
    "starts_smooth",
]
