"""Density estimators: numpy in, numpy out, everything in the units of the table."""

from ._autoregressive import MAFDensity
from ._coupling import RealNVPDensity
from ._ffjord import FFJORDDensity
from ._flow_matching import FlowMatchingDensity
from ._glow import GlowDensity
from ._inverse_autoregressive import IAFDensity
from ._mixture import MixtureDensity
from ._spline import NeuralSplineFlowDensity

__all__ = [
    "FFJORDDensity",
    "FlowMatchingDensity",
    "GlowDensity",
    "IAFDensity",
    "MAFDensity",
    "MixtureDensity",
    "NeuralSplineFlowDensity",
    "RealNVPDensity",
]
