"""Detectors of outliers, which hold densities."""

from ._detector import FlowOutlierDetector
from ._displays import FeatureSurpriseDisplay

__all__ = ["FeatureSurpriseDisplay", "FlowOutlierDetector"]
