"""Detectors of outliers, which hold densities."""

from ._detector import FlowOutlierDetector

__all__ = ["FlowOutlierDetector"]
