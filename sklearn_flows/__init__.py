"""Density estimation for tables with normalizing flows, as scikit-learn estimators."""

from .density import MAFDensity, MixtureDensity, NeuralSplineFlowDensity, RealNVPDensity
from .ensemble import BaggingDensity, StackingDensity
from .outlier import FeatureSurpriseDisplay, FlowOutlierDetector

__version__ = "0.1.0"

__all__ = [
    "BaggingDensity",
    "FeatureSurpriseDisplay",
    "FlowOutlierDetector",
    "MAFDensity",
    "MixtureDensity",
    "NeuralSplineFlowDensity",
    "RealNVPDensity",
    "StackingDensity",
    "__version__",
]
