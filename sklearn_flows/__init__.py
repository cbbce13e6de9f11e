"""Density estimation for tables with normalizing flows, as scikit-learn estimators."""

from .density import IAFDensity, MAFDensity, MixtureDensity, NeuralSplineFlowDensity, RealNVPDensity
from .ensemble import BaggingDensity, StackingDensity

__version__ = "0.1.0"

__all__ = [
    "BaggingDensity",
    "IAFDensity",
    "MAFDensity",
    "MixtureDensity",
    "NeuralSplineFlowDensity",
    "RealNVPDensity",
    "StackingDensity",
    "__version__",
]
