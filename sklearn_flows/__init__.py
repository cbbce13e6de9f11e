"""Density estimation for tables with normalizing flows, as scikit-learn estimators."""

from .conditional import ConditionalFlowDensity
from .density import (
    FFJORDDensity,
    FlowMatchingDensity,
    GlowDensity,
    IAFDensity,
    MAFDensity,
    MixtureDensity,
    NeuralSplineFlowDensity,
    RealNVPDensity,
)
from .ensemble import BaggingDensity, StackingDensity
from .outlier import FeatureSurpriseDisplay, FlowOutlierDetector
from .variational import ImportanceSample, VariationalFlow

__version__ = "0.1.0"

__all__ = [
    "BaggingDensity",
    "ConditionalFlowDensity",
    "FFJORDDensity",
    "FeatureSurpriseDisplay",
    "FlowMatchingDensity",
    "FlowOutlierDetector",
    "GlowDensity",
    "IAFDensity",
    "ImportanceSample",
    "MAFDensity",
    "MixtureDensity",
    "NeuralSplineFlowDensity",
    "RealNVPDensity",
    "StackingDensity",
    "VariationalFlow",
    "__version__",
]
