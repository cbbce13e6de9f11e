"""What training starts from: encoded rows, and a flow over them or the kind of its base."""

from typing import NamedTuple

import numpy as np
import torch
from sklearn.utils import gen_batches

from ..encoding import TableEncoding
from ..flows import Flow, Rows
from ..utils._settings import resolve_device
from ._queries import log_density_of_constants

# Rows encoded at once before training.
ENCODING_CHUNK = 2**12


class Start(NamedTuple):
    """Where training starts, and with what: encoded rows, with the mean log-density that they lack to be rows of the table.

    A flow that isn't there yet is built on ``base`` once the table's memory is free.
    """

    encoding: TableEncoding
    flow: Flow | None
    base: str
    margins: str
    train: Rows
    validation: Rows | None
    units: float
    units_val: float
    early_stopping: bool


def encode_parts(density, encoding, part, part_val):
    """Encode what a density is trained with, and validated with, where it shall be trained.

    Parameters
    ----------
    density : BaseFlowDensity
        The density.
    encoding : TableEncoding or ImageEncoding
        Map of the columns.
    part, part_val : tuple of ndarray, tuple of ndarray or None
        Rows, their weights and the indices of those to take.

    Returns
    -------
    train, validation : Rows, Rows or None
        The encoded rows.
    units, units_val : float
        Mean log-density that they lack to be rows of the table.
    """
    cuda_pays = density._holds_images() or len(part[2]) >= density._min_rows_for_cuda
    device = resolve_device(density, cuda_pays=cuda_pays)
    train, units = encode_rows(encoding, *part, device)
    validation, units_val = (None, 0.0) if part_val is None else encode_rows(encoding, *part_val, device)
    return train, validation, units, units_val


def encode_rows(encoding, rows, weight, indices, device):
    """Encode some of the rows for training: in float64 and kept in float32, a chunk at a time.

    Parameters
    ----------
    encoding : TableEncoding or ImageEncoding
        Map of the columns.
    rows, weight : ndarray of shape (n_samples, n_features), ndarray of shape (n_samples,)
        Rows and their weights.
    indices : ndarray of int
        Which of them.
    device : torch.device
        Where to keep them.

    Returns
    -------
    encoded : Rows
        The columns that vary.
    lacking : float
        Mean log-density that they lack to be ``rows``: the log-determinant of the encoding and the density of the constant
        columns.
    """
    weight = weight[indices]
    weight /= weight.mean()
    values = np.empty((len(indices), encoding.varies.sum()), dtype=np.float32)
    lacking = 0.0
    for chunk in gen_batches(len(indices), ENCODING_CHUNK):
        Z, log_det = encoding.encode(rows[indices[chunk]])
        values[chunk] = Z[:, encoding.varies]
        lacking += weight[chunk] @ (log_det + log_density_of_constants(encoding, Z))
    on_device = Rows(torch.as_tensor(values, device=device), torch.as_tensor(weight, dtype=torch.float32, device=device))
    return on_device, float(lacking / weight.sum())
