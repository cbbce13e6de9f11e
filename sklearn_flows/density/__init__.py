"""Density estimators: numpy in, numpy out, everything in the units of the table."""

from ._autoregressive import MAFDensity
from ._coupling import RealNVPDensity
from ._glow import GlowDensity
from ._inverse_autoregressive import IAFDensity
from ._mixture import MixtureDensity
from ._spline import NeuralSplineFlowDensity

__all__ = ["GlowDensity", "IAFDensity", "MAFDensity", "MixtureDensity", "NeuralSplineFlowDensity", "RealNVPDensity"]
