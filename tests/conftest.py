"""What several test modules share."""

import os

# Several test processes, and those they start, share the cores: threads that wait for each other there cost minutes. This must
# stand before anything imports torch or numpy.
os.environ["OMP_NUM_THREADS"] = "1"

from functools import partial

import pytest
import torch

from sklearn_flows import MAFDensity, NeuralSplineFlowDensity, RealNVPDensity
from sklearn_flows.nets import MaskedLinear


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def randomise():
    """Function that brings a module to float64 and draws all its parameters: as built, most layers are the identity."""

    def randomise(module, generator, std=0.4):
        module.double()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.normal_(std=std, generator=generator)
            for layer in module.modules():
                if isinstance(layer, MaskedLinear):
                    layer.weight.mul_(layer.mask)
        return module

    return randomise


@pytest.fixture(
    scope="session",
    params=[NeuralSplineFlowDensity, MAFDensity, RealNVPDensity],
    ids=lambda Density: Density.__name__,
)
def make_density(request):
    """Each estimator's class in turn (``make_density.func``), called with small settings for what the caller leaves out."""
    plain = {"margins": "bent", "base": "normal", "n_teachers": 0}
    return partial(request.param, n_transforms=2, hidden_layer_sizes=(8,), max_iter=5, random_state=0, **plain)
