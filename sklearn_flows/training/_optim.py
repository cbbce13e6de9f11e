"""AdamW on one flat vector of parameters, its learning-rate schedule, clipping and snapshots."""

from __future__ import annotations

import math
from itertools import accumulate

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn


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
    leaf : Tensor of shape (n_parameters,)
        ``values`` as autograd sees them, for what computes with the vector itself.
    offsets : dict
        Where a parameter starts in the vectors, by its ``id``.
    n_decaying : int
        How many of them, the first ones, weight decay applies to: weights of linear layers and convolutions in networks.
    """

    def __init__(self, module: nn.Module) -> None:
        weights = {id(layer.weight) for layer in module.modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
        # Those that decay come first, so that they too are one piece.
        parameters = sorted(module.parameters(), key=lambda p: id(p) not in weights)
        self.values = torch.cat([p.detach().reshape(-1) for p in parameters])
        self.gradients = torch.zeros_like(self.values)
        self.n_decaying = sum(p.numel() for p in parameters if id(p) in weights)
        self.leaf = self.values.detach().requires_grad_()
        sizes = [p.numel() for p in parameters]
        self.offsets = {id(p): end - p.numel() for p, end in zip(parameters, accumulate(sizes), strict=True)}
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
    is_compiled : bool, default=False
        Whether kernels compiled for the CPU take the steps: only where others have been loaded already.

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
        is_compiled: bool = False,
    ) -> None:
        self.parameters = parameters
        self.weight_decay = weight_decay
        self.max_norm = max_norm
        self.betas = betas
        self.eps = eps
        self.is_compiled = is_compiled
        self.reset()

    def reset(self) -> None:
        """Forget all moments."""
        values = self.parameters.values
        self.first_moment, self.second_moment = torch.zeros_like(values), torch.zeros_like(values)
        self.n_steps = torch.zeros((), dtype=torch.float32, device=values.device)

    @property
    def vectors(self) -> list[npt.NDArray[np.floating]]:
        """Values, gradients, and both moments, on the CPU, as compiled kernels take them."""
        flat = self.parameters
        return [vector.numpy() for vector in (flat.values, flat.gradients, self.first_moment, self.second_moment)]

    @property
    def settings(self) -> list[float]:
        """What doesn't change from step to step, in the order in which compiled kernels take it."""
        return [self.weight_decay, self.max_norm, *self.betas, self.eps]

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Take a step along the current gradients, and clear them."""
        flat = self.parameters
        if self.is_compiled:
            from ..compiled._adamw import adamw_step

            self.n_steps += 1
            adamw_step(*[*self.vectors, flat.n_decaying, learning_rate, *self.settings, int(self.n_steps)])
            return
        # The norm stays on the device: reading it would wait for the whole backward pass.
        excess = (flat.gradients.norm() / self.max_norm).clamp(min=1.0).float()
        self.n_steps += 1
        everything = (flat.values, flat.gradients, self.first_moment, self.second_moment)
        decaying, others = slice(flat.n_decaying), slice(flat.n_decaying, None)
        for part, weight_decay in ((decaying, self.weight_decay), (others, 0.0)):
            values, gradients, first_moment, second_moment = (vector[part] for vector in everything)
            # torch's own kernel, one pass over memory, without the class around it.
            torch._fused_adamw_(
                [values],
                [gradients],
                [first_moment],
                [second_moment],
                [],
                [self.n_steps],
                lr=learning_rate,
                beta1=self.betas[0],
                beta2=self.betas[1],
                weight_decay=weight_decay,
                eps=self.eps,
                amsgrad=False,
                maximize=False,
                grad_scale=excess,
            )
        flat.gradients.zero_()


class MovingAverage:
    """Average of the last vectors: of the first few their mean, later each of them fades away.

    Parameters
    ----------
    vector : Tensor
        What to begin with. It counts only until another is added.
    n_averaged : int
        About how many of the last ones count.

    Attributes
    ----------
    values : Tensor
        The average.
    n_added : int
        How many have been added, ``n_averaged`` at most.
    """

    def __init__(self, vector: Tensor, n_averaged: int) -> None:
        self.n_averaged = n_averaged
        self.values, self.n_added = vector.clone(), 0

    def add(self, vector: Tensor) -> None:
        """Let another vector count."""
        self.n_added = min(self.n_added + 1, self.n_averaged)
        self.values.lerp_(vector, 1 / self.n_added)

    def start_again(self, vector: Tensor) -> None:
        """Forget all, and begin with another vector."""
        self.values.copy_(vector)
        self.n_added = 0


def warmup_cosine(step: int, n_steps: float, warmup_share: float = 0.05) -> float:
    """Learning-rate factor: a linear warm-up, then half a cosine down to zero.

    Parameters
    ----------
    step : int
        Number of the step, from 0.
    n_steps : float
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
