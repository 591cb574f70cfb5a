"""Sparse matrices and masked arrays are refused wherever arrays come in, because kl would read them as dense ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from kl.errors import InputError


def require_dense(name: str, x: Any) -> None:
    """Accept tensors and arrays that hold a number at every place, and refuse all others.

    Raises:
        InputError: x is a sparse, nested, quantized or masked tensor, a SciPy sparse matrix or a masked NumPy array;
            the message names it and the remedy.

    Example:
        >>> require_dense("x", torch.eye(2).to_sparse())
        Traceback (most recent call last):
        kl.errors.InputError: x must be dense; got a sparse tensor (torch.sparse_coo): give x.to_dense()
    """
    if isinstance(x, Tensor):
        if x.layout != torch.strided:
            raise InputError(f"{name} must be dense; got a sparse tensor ({x.layout}): give {name}.to_dense()")
        if x.is_nested or x.is_quantized or type(x).__name__ == "MaskedTensor":
            kind = "nested" if x.is_nested else "quantized" if x.is_quantized else "masked"
            raise InputError(
                f"{name} must be a plain tensor with a number at every place; got a {kind} one: convert it"
            )
    elif isinstance(x, np.ma.MaskedArray):
        masked = int(np.ma.count_masked(x))
        raise InputError(
            f"{name} must have a number at every place; got a masked array with {masked} masked values: fill them with "
            f"{name}.filled(value), or leave their rows out"
        )
    elif type(x).__module__.startswith("scipy.sparse"):
        raise InputError(f"{name} must be dense; got a SciPy sparse {type(x).__name__}: give {name}.toarray()")
