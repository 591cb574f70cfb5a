"""The average gradient outer product against a dense oracle, its options, its edges and its errors."""

import pytest
import torch
from torch import Tensor

from kl import Agop, Gaussian, InputError, Laplacian, Polynomial, ReluNTK, Rows, agop, interpolate
from kl.features.agop import Blocks
from kl.features.structure import Structure

pytestmark = pytest.mark.numeric


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


N, P, D, C = 40, 30, 6, 3
X, Z, ALPHA = normal(N, D), normal(P, D, seed=1), normal(P, C, seed=2)
ROWS, CENTERS = Rows.of(X), Rows.of(Z)
KERNEL = Laplacian(2.0)
GROUPS = [[0, 3], [5, 1, 2], [4]]


def dense(centered=False, weights=None, kernel=KERNEL, x=X) -> Tensor:
    """By loops over rows and outputs, from differences of the kernel's values."""
    step, w = 1e-6, torch.ones(len(x)).double() if weights is None else weights
    steps = step * torch.eye(D).double()
    gradients = torch.stack([(kernel(x + e, Z) - kernel(x - e, Z)) @ ALPHA / (2 * step) for e in steps], dim=2)
    if centered:
        gradients = gradients - (w[:, None, None] * gradients).sum(dim=0, keepdim=True) / w.sum()
    found = torch.zeros(D, D).double()
    for i in range(len(x)):
        for o in range(C):
            found += w[i] * torch.outer(gradients[i, o], gradients[i, o])
    return found / w.sum()


def off(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("memory", ["256MB", 2000, 20000])  # all at once; a row and an output at a time
@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("kernel", [KERNEL, ReluNTK(2, 0.5), Gaussian(2.0) + Polynomial(2)], ids=str)
def test_full(kernel, centered, memory) -> None:
    found = agop(kernel, ROWS, CENTERS, ALPHA, centered=centered, memory=memory)
    assert found.rows == N
    assert off(found.dense(), dense(centered, kernel=kernel)) < 1e-7
    assert (
        off(agop(kernel, ROWS, CENTERS, ALPHA, centered=centered, reduction="sum").dense(), N * found.dense()) < 1e-12
    )


@pytest.mark.parametrize("centered", [False, True])
def test_parts_are_those_of_the_full_matrix(centered) -> None:
    full = agop(KERNEL, ROWS, CENTERS, ALPHA, centered=centered).dense()
    diagonal = agop(KERNEL, ROWS, CENTERS, ALPHA, centered=centered, metric="diagonal")
    assert diagonal.parts[0].shape == (D,)
    torch.testing.assert_close(diagonal.dense(), full.diagonal().diag())
    blocks = agop(KERNEL, ROWS, CENTERS, ALPHA, centered=centered, metric=GROUPS)
    assert [tuple(part.shape) for part in blocks.parts] == [(2, 2), (3, 3), (1, 1)]
    kept = torch.zeros(D, D).bool()
    for group in GROUPS:
        kept[torch.tensor(group)[:, None], torch.tensor(group)] = True
    torch.testing.assert_close(blocks.dense(), torch.where(kept, full, 0.0))


@pytest.mark.parametrize("centered", [False, True])
def test_weights(centered) -> None:
    w = torch.arange(N).double() % 3
    assert off(agop(KERNEL, ROWS, CENTERS, ALPHA, weights=w, centered=centered).dense(), dense(centered, w)) < 1e-7
    twice = torch.cat([torch.arange(N), torch.arange(N)])[torch.cat([w > 0, w > 1])]  # a weight of 2 is a row twice
    found = agop(KERNEL, ROWS[twice], CENTERS, ALPHA, centered=centered)
    assert off(found.dense(), dense(centered, w)) < 1e-7
    drawn = agop(KERNEL, ROWS, CENTERS, ALPHA, weights=(torch.arange(N) == 7).double(), sample=5)
    assert drawn.rows == 1


def test_sample() -> None:
    some = [agop(KERNEL, ROWS, CENTERS, ALPHA, sample=10, seed=seed) for seed in (0, 0, 1)]
    assert some[0].rows == 10
    assert torch.equal(some[0].dense(), some[1].dense())
    assert not torch.equal(some[0].dense(), some[2].dense())
    whole = agop(KERNEL, ROWS, CENTERS, ALPHA)
    assert torch.equal(agop(KERNEL, ROWS, CENTERS, ALPHA, sample=N + 1).dense(), whole.dense())
    mean = sum(agop(KERNEL, ROWS, CENTERS, ALPHA, sample=10, seed=seed).dense() for seed in range(400)) / 400
    assert off(mean, whole.dense()) < 0.03


@pytest.mark.parametrize("centered", [False, True])
def test_a_sketch_is_unbiased(centered) -> None:
    wanted, total = dense(centered), torch.zeros(D, D).double()
    errors = []
    for seed in range(400):
        found = agop(KERNEL, ROWS, CENTERS, ALPHA, sketch=2, seed=seed, centered=centered).dense()
        errors.append(off(found, wanted))
        total += found
    single = sum(errors) / len(errors)
    assert 0.05 < single < 1
    # An unbiased mean of 400 is 20 times closer than one; a bias of a tenth of one's error would not be.
    assert off(total / 400, wanted) < single / 10
    more = [
        off(agop(KERNEL, ROWS, CENTERS, ALPHA, sketch=32, seed=s, centered=centered).dense(), wanted) for s in range(20)
    ]
    assert sum(more) / 20 < single / 2.5  # 4 times the signs halve the error, 16 times quarter it


def test_a_sketch_of_one_output_is_exact_and_does_not_depend_on_memory() -> None:
    for centered in (False, True):
        exact = agop(KERNEL, ROWS, CENTERS, ALPHA[:, :1], centered=centered).dense()
        assert off(agop(KERNEL, ROWS, CENTERS, ALPHA[:, :1], sketch=3, centered=centered).dense(), exact) < 1e-9
    found = [agop(KERNEL, ROWS, CENTERS, ALPHA, sketch=2, memory=memory).dense() for memory in (2000, "256MB")]
    assert off(*found) < 1e-12


def test_same_rows_add_nothing() -> None:
    alpha = normal(N, C)
    named = agop(KERNEL, ROWS, ROWS, alpha, same=torch.arange(N), sample=20, memory=20000)
    assert off(named.dense(), agop(KERNEL, ROWS, ROWS, alpha, sample=20).dense()) < 1e-12


def test_float32_and_many_outputs() -> None:
    alpha = normal(P, 1000)
    x, z = Rows.of(X.float()), Rows.of(Z.float())
    exact = agop(KERNEL, ROWS, CENTERS, alpha)
    found = agop(KERNEL, x, z, alpha.float(), memory="200KB")
    assert found.parts[0].dtype == torch.float64
    assert off(found.dense(), exact.dense()) < 1e-5
    assert off(agop(KERNEL, x, z, alpha, sketch=50).dense(), exact.dense()) < 0.1


def test_blocks_keep_to_the_budget() -> None:
    for budget in (10**4, 10**6, 10**8):
        for d, c, itemsize in ((3, 1, 4), (784, 10, 4), (784, 1000, 8), (20, 1, 4)):
            blocks = Blocks.of(budget, d, c, itemsize)
            assert min(blocks.rows, blocks.outputs, blocks.columns) >= 1
            right = blocks.columns * blocks.outputs * (d + 1) * itemsize
            gradients = blocks.rows * blocks.outputs * (d + 1) * (itemsize + 8)
            assert right + gradients <= budget or (blocks.outputs == 1 and min(blocks.rows, blocks.columns) == 1)


class TestEdges:
    """Columns and data that are special."""

    def test_a_constant_column_is_0(self) -> None:
        x = X.clone()
        x[:, 2] = 5.1
        found = agop(KERNEL, Rows.of(x.float()), Rows.of(x.float()), normal(N, C)).dense()
        assert not found[2].any()
        assert not found[:, 2].any()

    def test_equal_columns_are_equal(self) -> None:
        x = X.clone()
        x[:, 2] = x[:, 0]
        found = agop(KERNEL, Rows.of(x), Rows.of(x), normal(N, C)).dense()
        torch.testing.assert_close(found[2], found[0])

    def test_more_columns_than_rows_and_one_column(self) -> None:
        for d in (200, 1):
            x = normal(12, d)
            found = agop(Gaussian(5.0), Rows.of(x), Rows.of(x), normal(12, 2))
            assert found.dense().shape == (d, d)
            assert not found.is_zero
            assert torch.linalg.matrix_rank(found.dense()) <= 12 * 2

    def test_no_gradient(self) -> None:
        assert agop(KERNEL, ROWS, CENTERS, torch.zeros(P, C)).is_zero
        assert agop(KERNEL, ROWS, CENTERS, torch.zeros(P, C), metric="diagonal", sketch=1, centered=True).is_zero

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_a_linear_function_has_no_centred_gradient(self, dtype) -> None:
        x = Rows.of(X.to(dtype))
        assert not agop(Polynomial(1), x, x, normal(N, C)).is_zero
        assert agop(Polynomial(1), x, x, normal(N, C), centered=True).is_zero

    def test_it_finds_the_columns_that_count(self) -> None:
        x = normal(200, 8)
        y = torch.sin(x[:, :1] + x[:, 3:4])
        alpha = interpolate(Gaussian(3.0), x, y).alpha
        found = agop(Gaussian(3.0), Rows.of(x), Rows.of(x), alpha, same=torch.arange(200)).dense()
        leading = torch.linalg.eigh(found).eigenvectors[:, -1]
        wanted = torch.zeros(8).double()
        wanted[[0, 3]] = 0.5**0.5
        assert float((leading @ wanted).abs()) > 0.99


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "round"}, "metric must be full, diagonal or a list of groups of columns; got 'round'"),
        ({"metric": 3}, "metric must be full, diagonal or a list of groups of columns; got 3: try"),
        ({"metric": [[0, 1], [2, 3]]}, r"groups of all columns 0\.\.5, each once; got groups where 4 is missing"),
        ({"metric": [[0, 1, 2], [2, 3, 4, 5]]}, "got groups where 2 is none or there twice"),
        ({"metric": [[0, 1, 2, 3, 4, 5], [6]]}, "got groups where 6 is none or there twice"),
        ({"metric": [[0, 1, 2, 3, 4, 5], []]}, "got groups where one is empty"),
        ({"sample": 0}, "sample must be a whole number of at least 1, or left out (None) for all rows; got 0"),
        ({"sketch": 0}, "sketch must be a whole number, 1 or above; got 0"),
        ({"reduction": "median"}, "reduction must be one of mean, sum; got 'median'"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"memory": "lots"}, "memory must be auto, a number of bytes"),
        ({"weights": torch.ones(3)}, r"weights must have one number for each of the 40 rows; got shape \(3,\)"),
        ({"weights": -torch.ones(N)}, "weights must be finite, 0 or above, and not all 0"),
        ({"weights": torch.zeros(N)}, "weights must be finite, 0 or above, and not all 0"),
        ({"weights": torch.full((N,), float("nan"))}, "weights must be finite"),
        ({"alpha": torch.ones(3, 2)}, r"alpha must have one row for each of the 30 centres, .* got \(3, 2\)"),
        ({"alpha": torch.ones(P)}, r"alpha must have one row .* got \(30,\)"),
        ({"alpha": torch.full((P, 1), float("nan"))}, "alpha must be finite; got NaN or infinity: the fit"),
    ],
)
def test_errors(options, message) -> None:
    with pytest.raises(InputError, match=message):
        agop(KERNEL, ROWS, CENTERS, **{"alpha": ALPHA, **options})


def test_a_structure_is_taken_as_it_is() -> None:
    structure = Structure.of(GROUPS, D)
    assert Structure.of(structure, D) == structure
    assert agop(KERNEL, ROWS, CENTERS, ALPHA, metric=structure).structure == structure
    assert Structure.of(Structure.of("full", 9), D) == Structure("full", D)
    assert isinstance(agop(KERNEL, ROWS, CENTERS, ALPHA, metric=[[5, 4, 3, 2, 1, 0]]), Agop)
