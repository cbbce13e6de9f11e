"""Muon and AdamW on one flat vector of parameters, their learning-rate schedule, clipping and snapshots."""

from __future__ import annotations

import math
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..nets import MUON_BLOCK_SIZE, Linear
from ._recording import CALLS_BEFORE_RECORDING, Recording

# Newton-Schulz iterations and their coefficients, those of Muon's authors, which bring singular values between 0.002 and 1 to
# between 0.7 and 1.2.
N_ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
# Root mean square of a block's step, in units of the learning rate: about that of a step of Adam.
SIZE_OF_STEPS = 0.2
# Decay rate of the momentum of blocks.
MOMENTUM = 0.95


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
    blocks : ndarray of shape (n_blocks, 4), dtype int64
        Blocks of rows of the linear layers' weights, which are the first of all: where each starts in the vectors, the number
        of its first row among all rows of blocks, and how many rows and columns it has. A matrix that is narrower than a block
        is high is one block.
    n_seen : ndarray of shape (n_rows,), dtype int64
        How many weights of each row exist: the first ones.
    n_in_blocks : int
        How many parameters, the first ones, are in blocks.
    """

    def __init__(self, module: nn.Module) -> None:
        layers = {id(layer.weight): layer for layer in module.modules() if isinstance(layer, Linear)}
        weights = {id(layer.weight) for layer in module.modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
        # Those that decay come first, so that they too are one piece, and of these the ones in blocks.
        parameters = sorted(module.parameters(), key=lambda p: (id(p) not in weights, id(p) not in layers))
        self.values = torch.cat([p.detach().reshape(-1) for p in parameters])
        self.gradients = torch.zeros_like(self.values)
        self.n_decaying = sum(p.numel() for p in parameters if id(p) in weights)
        self.leaf = self.values.detach().requires_grad_()
        sizes = [p.numel() for p in parameters]
        self.offsets = {id(p): end - p.numel() for p, end in zip(parameters, accumulate(sizes), strict=True)}
        self._divide([layers[id(p)] for p in parameters if id(p) in layers])
        for p, value, gradient in zip(
            parameters, torch.split(self.values, sizes), torch.split(self.gradients, sizes), strict=True
        ):
            p.data = value.view_as(p)
            p.grad = gradient.view_as(p)

    def _divide(self, layers: list[Linear]) -> None:
        blocks, n_rows = [], 0
        for layer in layers:
            n_out, n_in = layer.weight.shape
            n_blocks = 1 if n_in < MUON_BLOCK_SIZE else math.ceil(n_out / MUON_BLOCK_SIZE)
            ends = [n_out * (i + 1) // n_blocks for i in range(n_blocks)]
            offset = self.offsets[id(layer.weight)]
            blocks += [
                (offset + start * n_in, n_rows + start, end - start, n_in)
                for start, end in zip([0, *ends], ends, strict=False)
                if n_in > 0
            ]
            n_rows += n_out
        self.blocks = np.array(blocks, dtype=np.int64).reshape(-1, 4)
        self.n_seen = np.array([n for layer in layers for n in layer.n_seen], dtype=np.int64)
        self.n_in_blocks = sum(layer.weight.numel() for layer in layers)


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

    # How many parameters, the first ones, take other steps: none but in subclasses.
    n_in_blocks = 0

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
        values = parameters.values
        self.first_moment, self.second_moment = torch.zeros_like(values), torch.zeros_like(values)
        self.n_steps = torch.zeros((), dtype=torch.float32, device=values.device)
        self._rate = torch.zeros_like(self.n_steps)
        self._n_calls = 0
        self._recording: Recording[None] | None = None

    def reset(self) -> None:
        """Forget all moments."""
        # In place, where a recording of steps finds them.
        for moment in (self.first_moment, self.second_moment, self.n_steps):
            moment.zero_()

    @property
    def vectors(self) -> list[npt.NDArray[np.floating]]:
        """Values, gradients, and both moments, on the CPU, as compiled kernels take them."""
        flat = self.parameters
        return [vector.numpy() for vector in (flat.values, flat.gradients, self.first_moment, self.second_moment)]

    @property
    def parts(self) -> list[int | npt.NDArray[np.generic]]:
        """Which parameters are stepped how, in the order in which compiled kernels take it."""
        flat = self.parameters
        blocks = flat.blocks if self.n_in_blocks else flat.blocks[:0]
        return [flat.n_decaying, blocks, flat.n_seen, self.n_in_blocks, np.array(COEFFICIENTS)]

    @property
    def settings(self) -> list[float]:
        """What doesn't change from step to step, in the order in which compiled kernels take it."""
        return [self.weight_decay, self.max_norm, *self.betas, self.eps, MOMENTUM, N_ITERATIONS, SIZE_OF_STEPS]

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Take a step along the current gradients, and clear them."""
        if not self.parameters.values.is_cuda:
            self._take_step(learning_rate)
            return
        self._rate.fill_(learning_rate)
        self._n_calls += 1
        if self._n_calls <= CALLS_BEFORE_RECORDING:
            self._take_step(self._rate)
            return
        if self._recording is None:
            self._recording = Recording(lambda: self._take_step(self._rate))
        self._recording.replay()

    def _take_step(self, learning_rate: float | Tensor) -> None:
        flat = self.parameters
        # The norm stays on the device: reading it would wait for the whole backward pass.
        excess = (flat.gradients.norm() / self.max_norm).clamp(min=1.0).float()
        self.n_steps += 1
        everything = (flat.values, flat.gradients, self.first_moment, self.second_moment)
        self._step_of_blocks(learning_rate, excess)
        decaying, others = slice(self.n_in_blocks, flat.n_decaying), slice(flat.n_decaying, None)
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

    def _step_of_blocks(self, learning_rate: float | Tensor, excess: Tensor) -> None:
        """Take the steps of the first ``n_in_blocks`` parameters, along gradients divided by ``excess``."""


class Muon(AdamW):
    """Orthogonalised momentum for the weights of linear layers [1]_, AdamW for all other parameters.

    A step of a matrix goes along :math:`(M M^T)^{-1/2} M`, where :math:`M` is its momentum: all singular values are one, so
    that what few rows tell of moves the weights as far as what all tell of. Here each block of rows of a matrix is made
    orthonormal on its own: :math:`M M^T` is small, and Newton-Schulz iterations with it take little of a training step's time.
    Where optimisation is what limits a fit, it needs several times fewer steps than AdamW; where rows are few, it overfits
    sooner.

    Parameters
    ----------
    parameters : FlatParameters
        What to optimise.
    weight_decay : float
        Decoupled weight decay.
    max_norm, betas, eps
        As for ``AdamW``.

    References
    ----------
    .. [1] Jordan, Jin, Boza, You, Cesista, Newhouse and Bernstein, "Muon: An optimizer for hidden layers in neural networks",
       2024, https://kellerjordan.github.io/posts/muon/.
    .. [2] Liu et al., "Muon is Scalable for LLM Training", arXiv:2502.16982, 2025: the size of steps.
    """

    def __init__(self, parameters: FlatParameters, weight_decay: float, **settings: Any) -> None:
        super().__init__(parameters, weight_decay, **settings)
        self.n_in_blocks = parameters.n_in_blocks

    @cached_property
    def _groups(self) -> list[tuple[Tensor, Tensor]]:
        """Blocks of one shape, transposed where that makes them wide: where their weights are, and which of them exist."""
        values = self.parameters.values
        return [(index.to(values.device), exists.to(values)) for index, exists in _groups(self.parameters)]

    def _step_of_blocks(self, learning_rate: float | Tensor, excess: Tensor) -> None:
        own = slice(self.n_in_blocks)
        gradients, momentum, values = self.parameters.gradients[own], self.first_moment[own], self.parameters.values[own]
        gradients = gradients / excess
        momentum.mul_(MOMENTUM).add_(gradients)
        ahead = gradients.add_(momentum, alpha=MOMENTUM)
        steps = _orthogonalised([ahead[index] for index, _ in self._groups])
        for (index, exists), step in zip(self._groups, steps, strict=True):
            size = learning_rate * SIZE_OF_STEPS * math.sqrt(index.shape[-1])
            values[index] = values[index].mul_(1 - learning_rate * self.weight_decay).sub_(step.mul_(exists).mul_(size))


def _groups(parameters: FlatParameters) -> list[tuple[Tensor, Tensor]]:
    by_shape: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = {}
    for first, first_row, n_rows, n_columns in parameters.blocks.tolist():
        index = first + torch.arange(n_rows * n_columns).view(n_rows, n_columns)
        n_seen = torch.as_tensor(parameters.n_seen[first_row : first_row + n_rows])
        exists = torch.arange(n_columns) < n_seen[:, None]
        if n_rows > n_columns:
            index, exists = index.T, exists.T
        by_shape.setdefault(tuple(index.shape), []).append((index, exists))
    groups = [zip(*blocks, strict=True) for blocks in by_shape.values()]
    return [(torch.stack(index), torch.stack(exists)) for index, exists in groups]


def _orthogonalised(groups: list[Tensor]) -> list[Tensor]:
    """Matrices of orthonormal rows, nearly, that are closest to those given, which are wide; zeros remain zeros.

    Their products with themselves are small enough to be iterated on all at once, each in the corner of one of the same size.
    """
    if not groups:
        return []
    size = max(blocks.shape[-2] for blocks in groups)
    corners = [nn.functional.pad(blocks @ blocks.mT, (0, size - blocks.shape[-2]) * 2) for blocks in groups]
    products = torch.cat(corners)
    norm = products.flatten(-2).norm(dim=-1)[..., None, None]
    norm = torch.where(norm == 0, 1.0, norm)
    products = products / norm
    identity = torch.eye(size, dtype=products.dtype, device=products.device)
    result = identity / norm.sqrt()
    a, b, c = COEFFICIENTS
    for _ in range(N_ITERATIONS):
        factor = a * identity + b * products + c * (products @ products)
        result = factor @ result
        products = factor @ products @ factor
    parts = result.split([len(blocks) for blocks in groups])
    return [part[:, : blocks.shape[-2], : blocks.shape[-2]] @ blocks for part, blocks in zip(parts, groups, strict=True)]


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
