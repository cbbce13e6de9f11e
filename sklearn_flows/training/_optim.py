"""AdamW on one flat vector of parameters, its learning-rate schedule, clipping and snapshots."""

from __future__ import annotations

import math

import torch
from torch import nn


class FlatParameters:
    """All parameters of a module as views of one vector, and their gradients as views of another.

    The optimiser, the clipping and the snapshots then take a few kernels in all instead of a few for each parameter.

    Parameters
    ----------
    module : nn.Module
        Its parameters must share dtype and device. They keep their identity, but their storage moves.

    Attributes
    ----------
    values, gradients : Tensor of shape (n_parameters,)
        The flat vectors.
    decays : Tensor of shape (n_parameters,)
        One where weight decay applies (weights of linear layers in networks), else zero.
    """

    def __init__(self, module: nn.Module) -> None:
        parameters = list(module.parameters())
        weights = {id(layer.weight) for layer in module.modules() if isinstance(layer, nn.Linear)}
        self.values = torch.cat([p.detach().reshape(-1) for p in parameters])
        self.gradients = torch.zeros_like(self.values)
        self.decays = torch.cat([torch.full_like(p.detach(), float(id(p) in weights)).reshape(-1) for p in parameters])
        sizes = [p.numel() for p in parameters]
        for p, value, gradient in zip(
            parameters, torch.split(self.values, sizes), torch.split(self.gradients, sizes), strict=True
        ):
            p.data = value.view_as(p)
            p.grad = gradient.view_as(p)


class AdamW:
    """Adam with decoupled weight decay [1]_ and clipping of the global gradient norm.

    ``torch.optim`` isn't used: constructing any of its classes imports the compiler stack, which takes as long as
    importing torch itself, and its per-parameter loops cost more than the arithmetic of small networks.

    Parameters
    ----------
    parameters : FlatParameters
        What to optimise.
    weight_decay : float
        Decoupled weight decay.
    max_norm : float, default=5.0
        Gradients with a larger Euclidean norm are scaled down to it.
    betas : tuple of (float, float), default=(0.9, 0.999)
        Decay rates of the moment estimates.
    eps : float, default=1e-8
        Added to the denominator.

    References
    ----------
    .. [1] Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, algorithm 2.
    """

    def __init__(
        self,
        parameters: FlatParameters,
        weight_decay: float,
        max_norm: float = 5.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self.parameters = parameters
        self.weight_decay = weight_decay
        self.max_norm = max_norm
        self.betas = betas
        self.eps = eps
        self.reset()

    def reset(self) -> None:
        """Forget all moments."""
        self.first_moment = torch.zeros_like(self.parameters.values)
        self.second_moment = torch.zeros_like(self.parameters.values)
        self.n_steps = 0

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Take a step along the current gradients, and clear them."""
        values, gradients = self.parameters.values, self.parameters.gradients
        # The norm stays on the device: reading it would wait for the whole backward pass.
        gradients.mul_((self.max_norm / (gradients.norm() + 1e-6)).clamp(max=1.0))
        beta_1, beta_2 = self.betas
        self.n_steps += 1
        self.first_moment.lerp_(gradients, 1 - beta_1)
        self.second_moment.mul_(beta_2).addcmul_(gradients, gradients, value=1 - beta_2)
        correction_1 = 1 - beta_1**self.n_steps
        correction_2 = 1 - beta_2**self.n_steps
        if self.weight_decay:
            values.addcmul_(values, self.parameters.decays, value=-learning_rate * self.weight_decay)
        denominator = self.second_moment.div(correction_2).sqrt_().add_(self.eps)
        values.addcdiv_(self.first_moment, denominator, value=-learning_rate / correction_1)
        gradients.zero_()


def warmup_cosine(step: int, n_steps: int, warmup_share: float = 0.05) -> float:
    """Learning-rate factor: a linear warm-up, then half a cosine down to zero.

    Parameters
    ----------
    step : int
        Number of the step, from 0.
    n_steps : int
        Number of steps of the whole schedule.
    warmup_share : float, default=0.05
        Share of the steps that the warm-up takes.

    Returns
    -------
    float
        Factor in (0, 1].
    """
    n_warmup = max(1, round(warmup_share * n_steps))
    if step < n_warmup:
        return (step + 1) / n_warmup
    return 0.5 * (1 + math.cos(math.pi * (step - n_warmup) / max(1, n_steps - n_warmup)))
