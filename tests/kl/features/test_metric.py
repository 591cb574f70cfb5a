"""The metric of learnt features: its root, its scale, its files, its edges."""

import pytest
import torch
from torch import Tensor

from kl import Agop, Gaussian, InputError, Laplacian, Metric, Rows, agop
from kl.features.structure import Structure
from kl.products.gradients import gradient_matmul

pytestmark = pytest.mark.numeric

D = 5
GROUPS = [[0, 3], [4, 1, 2]]
KINDS = ["full", "diagonal", GROUPS]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def product(kind="full", d: int = D, seed: int = 0) -> Agop:
    structure = Structure.of(kind, d)
    return Agop(structure, structure.outer(normal(50, d, seed=seed) * torch.arange(1, d + 1)), 50)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("power", [1.0, 0.5, 2.0])
def test_root_power_and_scale(kind, power) -> None:
    found = product(kind)
    values, vectors = torch.linalg.eigh(found.dense())
    raised = (vectors * values**power) @ vectors.T
    metric = Metric.of(found, power=power)
    torch.testing.assert_close(metric.dense(), raised / raised.max())
    assert float(metric.dense().max()) == pytest.approx(1, abs=1e-12)
    torch.testing.assert_close(metric.importances, metric.dense().diagonal())
    x = normal(7, D, seed=3)
    moved = metric.transform(x)
    torch.testing.assert_close(moved @ moved.T, x @ metric.dense() @ x.T)
    trace = Metric.of(found, power=power, scale="trace")
    torch.testing.assert_close(trace.dense(), raised * D / raised.trace())


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_kernel_of_moved_rows_has_the_metric(kind) -> None:
    metric, x, z = Metric.of(product(kind)), normal(6, D), normal(4, D, seed=1)
    distances = torch.stack([torch.stack([(a - b) @ metric.dense() @ (a - b) for b in z]) for a in x]).sqrt()
    torch.testing.assert_close(Laplacian(2.0)(metric.transform(x), metric.transform(z)), torch.exp(-distances / 2))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_pull_back_is_the_chain_rule(kind) -> None:
    metric, x, z, alpha = Metric.of(product(kind)), normal(20, D), normal(9, D, seed=1), normal(9, 2, seed=2)
    kernel, root = Gaussian(2.0), Metric.of(product(kind)).transform(torch.eye(D).double())
    moved, centres = Rows.of(metric.transform(x)), Rows.of(metric.transform(z))
    found = metric.pull_back(agop(kernel, moved, centres, alpha, metric=kind))
    gradients = gradient_matmul(kernel, moved, centres, alpha)
    kept = Structure.of(kind, D)
    inner = kept.dense(kept.outer(gradients.flatten(0, 1))) / 20
    torch.testing.assert_close(found.dense(), root @ inner @ root)
    if kind == "full":  # f(x) = g(x R), by differences
        step = 1e-6
        ahead = [kernel(metric.transform(x + step * e), centres.data) @ alpha for e in torch.eye(D).double()]
        back = [kernel(metric.transform(x - step * e), centres.data) @ alpha for e in torch.eye(D).double()]
        own = ((torch.stack(ahead, 2) - torch.stack(back, 2)) / (2 * step)).flatten(0, 1)
        torch.testing.assert_close(found.dense(), own.T @ own / 20, rtol=1e-6, atol=1e-8)
    other = "diagonal" if kind == "full" else "full"
    with pytest.raises(InputError, match=f"must keep the metric's entries, .*; got {other}"):
        metric.pull_back(product(other))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_identity(kind) -> None:
    x = normal(4, D).float()
    metric = Metric.identity(D, kind)
    assert torch.equal(metric.transform(x), x)
    assert torch.equal(metric.dense(), torch.eye(D).double())


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_state(kind, tmp_path) -> None:
    metric, x = Metric.of(product(kind)), normal(9, D).float()
    torch.save(metric.state_dict(), tmp_path / "metric.pt")
    loaded = Metric.from_state(torch.load(tmp_path / "metric.pt", weights_only=True))
    assert loaded.structure == metric.structure
    assert torch.equal(loaded.transform(x), metric.transform(x))
    assert loaded.transform(x).dtype == torch.float32


class TestEdges:
    """Columns and products that are special."""

    def test_unused_columns_are_exactly_0(self) -> None:
        x = normal(30, D)
        x[:, 2] = 5.1
        for kind in KINDS:
            metric = Metric.of(agop(Laplacian(2.0), Rows.of(x), Rows.of(x), normal(30, 1), metric=kind))
            assert metric.importances[2] == 0
            assert not metric.transform(x)[:, 2].any()
            assert metric.importances[[0, 1, 3, 4]].all()

    def test_one_column(self) -> None:
        for kind in ("full", "diagonal", [[0]]):
            metric = Metric.of(product(kind, d=1))
            torch.testing.assert_close(metric.dense(), torch.ones(1, 1).double())

    def test_more_columns_than_gradients(self) -> None:
        structure = Structure.of("full", 30)
        rows = normal(3, 30)
        metric = Metric.of(Agop(structure, structure.outer(rows), 3))
        assert torch.linalg.matrix_rank(metric.transform(torch.eye(30).double())) == 3
        across = torch.linalg.svd(rows).Vh[3:]
        assert metric.transform(across).abs().max() < 1e-7

    def test_eigenvalues_below_0_are_0(self) -> None:
        part = torch.diag(torch.tensor([2.0, -0.1, 1.0]).double())
        metric = Metric.of(Agop(Structure("full", 3), (part,), 1))
        torch.testing.assert_close(metric.dense(), torch.diag(torch.tensor([1.0, 0.0, 0.5]).double()))

    def test_extreme_sizes(self) -> None:
        for size in (1e-200, 1e200):
            found = product()
            small = Agop(found.structure, (found.parts[0] * size,), 1)
            torch.testing.assert_close(Metric.of(small, power=2).dense(), Metric.of(found, power=2).dense())

    def test_all_zero(self) -> None:
        for kind in KINDS:
            structure = Structure.of(kind, D)
            with pytest.raises(InputError, match=r"gradients are 0 at all 7 rows, .* the fitted function is constant"):
                Metric.of(Agop(structure, structure.zeros(torch.ones(1)), 7))
        with pytest.raises(InputError, match="must have an eigenvalue above 0"):
            Metric.of(Agop(Structure("full", 2), (-torch.eye(2).double(),), 7))

    def test_nan(self) -> None:
        for value in (float("nan"), float("inf")):
            with pytest.raises(InputError, match="the gradients' outer product must be finite numbers"):
                Metric.of(Agop(Structure("diagonal", 2), (torch.tensor([1.0, value]),), 7))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "round"}, "a metric's kind must be one of full, diagonal, blocks; got 'round'"),
        ({"d": 0}, "d must be a whole number, 1 or above; got 0"),
        ({"d": 3}, r"must have the shapes \[\(3, 3\)\] for a full metric; got \[\(2, 2\)\]"),
        ({"roots": torch.eye(2)}, "a metric's roots must be a list of tensors; got Tensor"),
        ({"roots": [[1.0]]}, "a metric's roots must be a list of tensors; got list"),
        ({"roots": []}, r"must have the shapes .* got \[\]"),
        ({"roots": [torch.ones(2)]}, r"must have the shapes \[\(2, 2\)\] for a full metric; got \[\(2,\)\]"),
        (
            {"roots": [torch.eye(2).long()]},
            "a metric's roots must be finite numbers; got NaN, infinity or another type",
        ),
        ({"roots": [torch.full((2, 2), float("nan"))]}, "a metric's roots must be finite numbers"),
        ({"roots": [torch.tensor([[1.0, 0.5], [0.0, 1.0]])]}, "got a root that is not symmetric"),
        ({"roots": [-torch.eye(2)]}, "no eigenvalue below 0; got the eigenvalue -1"),
        ({"kind": "diagonal", "roots": [torch.tensor([1.0, -2.0])]}, "got the eigenvalue -2"),
        ({"kind": "blocks", "groups": [[0]], "roots": [torch.eye(1)]}, "got groups where 1 is missing"),
        ({"kind": "blocks", "groups": "ab"}, "metric must be full, diagonal or a list of groups"),
    ],
)
def test_damaged_files(change, message) -> None:
    state = {"kind": "full", "d": 2, "groups": [], "roots": [torch.eye(2)]}
    Metric.from_state(state)
    with pytest.raises(InputError, match=message):
        Metric.from_state({**state, **change})


def test_other_errors() -> None:
    for state in ({}, None, {"kind": "full"}):
        with pytest.raises(InputError, match="a metric must have kind, d, groups and roots"):
            Metric.from_state(state)
    for power in (0, -1.0, float("nan")):
        with pytest.raises(InputError, match="power must be a finite number above 0"):
            Metric.of(product(), power=power)
    with pytest.raises(InputError, match="scale must be one of max, trace; got 'sum'"):
        Metric.of(product(), scale="sum")
    with pytest.raises(InputError, match="x must have the metric's 5 columns; got 4"):
        Metric.identity(5).transform(torch.ones(2, 4))
    with pytest.raises(InputError, match="x must be finite; row 1"):
        Metric.identity(1).transform(torch.tensor([[1.0], [float("nan")]]))
