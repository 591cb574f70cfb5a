"""Sparse matrices and masked arrays are refused wherever arrays come in, with the remedy."""

import warnings

import numpy as np
import pytest
import scipy.sparse
import torch

import kl
from datamodules import ArrayDataModule, RawData
from kl.rkhs import evaluate

X, Y = torch.rand(10, 40, generator=torch.Generator().manual_seed(0)), torch.ones(10, 1)
KERNEL = kl.Laplacian(1.0)
PLACES = {
    "interpolate x": lambda bad: kl.interpolate(KERNEL, bad, Y),
    "interpolate y": lambda bad: kl.interpolate(KERNEL, X, bad),
    "least_squares": lambda bad: kl.least_squares(KERNEL, X, Y, bad),
    "kernel x": lambda bad: KERNEL(bad),
    "kernel z": lambda bad: KERNEL(X, bad),
    "diag": lambda bad: KERNEL.diag(bad),
    "resolve": lambda bad: kl.Laplacian().resolve(bad),
    "norm x": lambda bad: kl.rkhs_norm(KERNEL, bad, Y),
    "norm alpha": lambda bad: kl.rkhs_norm(KERNEL, X, bad),
    "evaluate": lambda bad: evaluate(KERNEL, X, Y, bad),
    "rows": kl.Rows.of,
    "dataset": lambda bad: kl.RowDataset(bad, Y),
    "centers": lambda bad: kl.GeneralKernelMachine(KERNEL, bad),
    "machine": lambda bad: machine()(bad),
    "array x": lambda bad: ArrayDataModule.from_arrays(bad, Y).setup(),
    "array y": lambda bad: ArrayDataModule.from_arrays(X, bad).setup(),
    "array x_test": lambda bad: ArrayDataModule.from_arrays(X, Y, bad, Y).setup(),
    "raw": lambda bad: RawData(bad, Y),
}


def machine():
    data = ArrayDataModule.from_arrays(X, np.arange(10) % 2)
    data.setup()
    fitted = kl.KernelMachine(KERNEL)
    fitted.take(data)
    return fitted


def compressed():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch: in beta state
        return X.to_sparse_csr()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (X.to_sparse, r"must be dense; got a sparse tensor \(torch.sparse_coo\): give .*\.to_dense\(\)"),
        (compressed, r"got a sparse tensor \(torch.sparse_csr\): give"),
        (lambda: scipy.sparse.csr_matrix(X.numpy()), r"got a SciPy sparse csr_matrix: give .*\.toarray\(\)"),
        (lambda: scipy.sparse.coo_array(X.numpy()), "got a SciPy sparse coo_array"),
        (lambda: np.ma.masked_less(X.numpy(), 0.5), r"got a masked array with \d+ masked values: .*\.filled\(value\)"),
    ],
)
def test_what_is_not_dense_is_refused(place, make, message):
    with pytest.raises(kl.InputError, match=message) as caught:
        PLACES[place](make())
    assert "\n" not in str(caught.value)


def test_masked_rows_in_a_list_are_refused():
    rows = [np.ma.masked_array([1.0, 2.0], [False, True])] * 4
    with pytest.raises(kl.InputError, match="x_train must have a number at every place; got a masked array with 1"):
        ArrayDataModule.from_arrays(rows, [0, 1, 0, 1]).setup()


def test_nested_tensors_are_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch: a prototype
        nested = torch.nested.nested_tensor([X[0], X[1, :3]])
    with pytest.raises(kl.InputError, match="x must be a plain tensor with a number at every place; got a nested one"):
        KERNEL(nested)
