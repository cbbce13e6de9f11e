"""Density estimation for tables with normalizing flows, as scikit-learn estimators."""

from .density import MAFDensity, NeuralSplineFlowDensity, RealNVPDensity
from .ensemble import BaggingDensity

__version__ = "0.1.0"

__all__ = ["BaggingDensity", "MAFDensity", "NeuralSplineFlowDensity", "RealNVPDensity", "__version__"]
