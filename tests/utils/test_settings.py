"""What settings mean."""

import torch

from sklearn_flows import MAFDensity
from sklearn_flows.utils._settings import resolve_device


def test_cuda_is_taken_by_itself_only_where_it_pays(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device(MAFDensity(), cuda_pays=True) == torch.device("cuda")
    assert resolve_device(MAFDensity(), cuda_pays=False) == torch.device("cpu")
    assert resolve_device(MAFDensity(device="cpu"), cuda_pays=True) == torch.device("cpu")
