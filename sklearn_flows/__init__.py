"""Density estimation for tables with normalizing flows, as scikit-learn estimators."""

from .density import MAFDensity, NeuralSplineFlowDensity, RealNVPDensity

__version__ = "0.1.0"

__all__ = ["MAFDensity", "NeuralSplineFlowDensity", "RealNVPDensity", "__version__"]
