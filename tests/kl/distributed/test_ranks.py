"""Several ranks: who owns which rows, the collectives, and that training gives what one rank gives."""

from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from processes import on_ranks, shared as on
from training import quiet_trainer, regression

import kl
from callbacks import ExactInterpolation, last_checkpoint
from datamodules import DigitsDataModule
from kl.distributed.ranks import Batch, FirstOfMany, Ranks
from kl.rows.rows import Rows
from kl.system.memory import parse_memory
from recipes.plan.command import become_first_of
from recipes.run.processes import Processes

pytestmark = pytest.mark.numeric

SIZES = (2, 3)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def here():
    return Ranks(dist.get_rank(), dist.get_world_size())


# Who owns what


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("n", [1, 2, 7, 20])
def test_every_row_has_one_owner(n, size):
    ranks = [Ranks(rank, size) for rank in range(size)]
    owned = [torch.arange(n)[one.local_rows(n)] for one in ranks]
    assert torch.equal(torch.cat(owned).sort()[0], torch.arange(n))
    for one, rows in zip(ranks, owned, strict=True):
        assert torch.equal(one.positions(n), rows)
        assert one.count(n) == len(rows)
        assert [one.count(n, other) for other in range(size)] == [len(each) for each in owned]
    assert max(map(len, owned)) - min(map(len, owned)) <= 1


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_batch_is_that_of_all_ranks_and_its_parts(size):
    positions = torch.tensor([9, 0, 4, 7, 2, 3])
    batches = [Batch(positions, Ranks(rank, size)) for rank in range(size)]
    for rank, batch in enumerate(batches):
        assert torch.equal(batch.positions, batches[0].positions)
        assert torch.equal(batch.positions.sort()[0], positions.sort()[0])
        assert torch.equal(batch.positions[batch.local_slice], batch.local * size + rank)
        assert len(batch) == sum(batch.counts) == 6
        assert batch.counts[rank] == len(batch.local)
    if size == 1:
        assert torch.equal(batches[0].positions, positions)


# The collectives


def collect(n):
    ranks, whole = here(), draw(n, 3)
    own, counts = whole[ranks.local_rows(n)], [ranks.count(n, rank) for rank in range(ranks.size)]
    images = Rows.of((whole.abs() * 40).round().clamp(0, 255).repeat(1, 20) / 255)
    return {
        "sum": ranks.all_reduce_sum(torch.full((2,), ranks.rank + 1.0)),
        "largest": ranks.all_reduce_max(float(ranks.rank)),
        "least": ranks.all_reduce_min(float(ranks.rank)),
        "nan": [ranks.all_reduce_max(float("nan") if ranks.rank == one else 1.0) for one in range(ranks.size)],
        "least nan": [ranks.all_reduce_min(float("nan") if ranks.rank == one else 1.0) for one in range(ranks.size)],
        "total": ranks.all_reduce_count(2),
        "each": ranks.all_gather_object(f"rank {ranks.rank}"),
        "gather": ranks.all_gather(own, counts),
        "whole": ranks.all_gather_in_order(own, n),
        "first": ranks.gather_in_order(own, n),
        "same": ranks.broadcast(torch.full((2,), float(ranks.rank))),
        "from": ranks.broadcast_result(lambda: ranks.rank),
        "rows": ranks.begin_all_gather_rows(Rows.of(own), counts)().data,
        "images": ranks.begin_all_gather_rows(images[ranks.positions(n)], counts)(),
        "received": ranks.received > 0,
    }


@pytest.mark.parametrize("size", SIZES)
def test_collectives(size):
    n = 7
    whole = draw(n, 3)
    by_rank = torch.cat([whole[rank::size] for rank in range(size)])
    images = Rows.of((whole.abs() * 40).round().clamp(0, 255).repeat(1, 20) / 255)
    order = torch.cat([torch.arange(n)[rank::size] for rank in range(size)])
    found = on_ranks(size, collect, n)
    for rank, one in enumerate(found):
        assert one["sum"].tolist() == [size * (size + 1) / 2] * 2
        assert (one["largest"], one["least"], one["total"], one["from"]) == (size - 1, 0, 2 * size, 0)
        assert all(value != value for value in one["nan"] + one["least nan"])  # whichever rank has it
        assert one["each"] == [f"rank {rank}" for rank in range(size)]
        assert torch.equal(one["gather"], by_rank)
        assert torch.equal(one["whole"], whole)
        assert torch.equal(one["first"], whole if rank == 0 else whole[rank::size])
        assert one["same"].tolist() == [0, 0]
        assert torch.equal(one["rows"], by_rank)
        assert one["received"]
        assert torch.equal(one["images"].sq_norm, images.sq_norm[order])
        torch.testing.assert_close(one["images"].data, images.data[order])
        if images.codes is not None:
            assert torch.equal(one["images"].codes.values, images.codes.values[order])


def failures():
    def fail():
        raise kl.InputError("wrong here")

    try:
        here().broadcast_result(fail)
    except kl.InputError as error:
        return str(error)


def test_an_error_on_the_first_rank_is_raised_on_all():
    assert on_ranks(2, failures) == ["wrong here"] * 2


def test_one_rank_needs_no_process_group():
    ranks, x = Ranks(), draw(5, 2)
    assert not dist.is_initialized()
    for found in (
        ranks.all_reduce_sum(x),
        ranks.all_gather(x, [5]),
        ranks.all_gather_in_order(x, 5),
        ranks.gather_in_order(x, 5),
    ):
        assert found is x
    assert (
        ranks.all_reduce_max(3.0),
        ranks.all_gather_object(1),
        ranks.broadcast_result(lambda: 2),
        ranks.received,
    ) == (3.0, [1], 2, 0)


# Training

LAPLACIAN = kl.Laplacian(4.0)


def eigenpro(**options):
    # A preconditioner of more directions amplifies more of what float32 rounds.
    return kl.KernelMachine(LAPLACIAN, memory="1GB", batch_size=101, top_q=15, **options)


def nothing_kept():
    machine = eigenpro(subsample=400)
    machine.on_train_start = lambda: None  # no rows of K; K(X, X_S) as the budget has it
    return machine


def eigenpro_4():
    return kl.GeneralKernelMachine(LAPLACIAN, 301, memory="1GB", batch_size=101, projection_period=2, decay=0)


def eigenpro_3():
    return kl.GeneralKernelMachine(
        LAPLACIAN, 301, memory="1GB", batch_size=101, projection_period=1, projection="eigenpro"
    )


def gradients():
    return kl.ConjugateGradientMachine(LAPLACIAN, memory="1GB")


MACHINES = {f.__name__: f for f in (eigenpro, nothing_kept, eigenpro_4, eigenpro_3, gradients)}


def train(name, folder, epochs=5, resume=None, data=None):
    """What a run leaves: the checkpoint's tensors on rank 0, and the metrics on every rank."""
    machine, exact = MACHINES[name](), ExactInterpolation(memory="1GB", cache_dir=f"{folder}/exact")
    saver = last_checkpoint(f"{folder}/run")
    trainer = quiet_trainer(epochs, callbacks=[exact, saver], enable_checkpointing=True, **on())
    data = data or DigitsDataModule(label_noise=0.1)
    trainer.fit(machine, datamodule=data, ckpt_path=resume, weights_only=True if resume else None)
    return {
        "metrics": {**machine.train_metrics, **machine.eval_metrics, "norm": machine.rkhs_norm},
        "distance": exact.results["distance_to_exact"],
        "chosen": machine.parameters_chosen,
        "steps": trainer.global_step,
        "received": machine.ranks.received,
        "state": torch.load(f"{folder}/run/last.ckpt", weights_only=True)["state_dict"],
    }


def train_all(folder):
    return {name: train(name, f"{folder}/{name}") for name in MACHINES}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return train_all(tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module", params=[3, *(pytest.param(size, marks=pytest.mark.slow) for size in (2, 4))])
def shared(request, tmp_path_factory):
    return on_ranks(request.param, train_all, tmp_path_factory.mktemp(f"on-{request.param}"))


@pytest.mark.parametrize("name", MACHINES)
def test_ranks_find_what_one_finds(alone, shared, name):
    wanted = alone[name]
    # The pivots of conjugate gradients are drawn by values whose rounding depends on who computes them.
    near = 1e-3 if name == "gradients" else 1e-5
    for rank in shared:
        found = rank[name]
        assert found["metrics"] == pytest.approx(wanted["metrics"], rel=near)
        assert found["distance"] == pytest.approx(wanted["distance"], rel=1e-3)
        for chosen in (found["chosen"], wanted["chosen"]):
            chosen.pop("memory_batch_size", None)  # several ranks have more memory
        assert found["chosen"] == pytest.approx(wanted["chosen"])
        assert found["steps"] == wanted["steps"]
        assert found["metrics"] == shared[0][name]["metrics"]
        assert found["received"] > 0
    for key, value in wanted["state"].items():
        ours = shared[0][name]["state"][key]
        assert ours.shape == value.shape
        assert ours.dtype == value.dtype
        if key in ("centers", "targets", "order", "origin"):
            assert torch.equal(ours, value)
    alpha, ours = (each["state"]["alpha"] for each in (wanted, shared[0][name]))
    assert float((ours - alpha).norm() / alpha.norm()) < (1e-2 if name == "gradients" else 2e-5)


# Checkpoints


def resume(folder):
    """On these ranks, runs that others began; each to its fifth epoch."""
    return {name: train(name, f"{folder}/{name}/second", resume=f"{folder}/{name}/run/last.ckpt") for name in RESUMED}


RESUMED = ("eigenpro", "eigenpro_4", "gradients")


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize(
    ("first", "second"), [(3, 2), *(pytest.param(*sizes, marks=pytest.mark.slow) for sizes in ((1, 3), (2, 1), (4, 2)))]
)
def test_a_run_goes_on_with_other_ranks(alone, tmp_path, first, second):
    def run(size, function):
        return on_ranks(size, function, tmp_path)[0] if size > 1 else function(tmp_path)

    run(first, begin)
    found = run(second, resume)
    for name in RESUMED:
        wanted, near = alone[name], 1e-3 if name == "gradients" else 1e-5
        assert found[name]["metrics"] == pytest.approx(wanted["metrics"], rel=near)
        assert found[name]["steps"] == wanted["steps"]
        loaded = type(MACHINES[name]()).load_from_checkpoint(f"{tmp_path}/{name}/second/run/last.ckpt")
        test = DigitsDataModule()
        test.setup()
        error = kl.metrics.error(loaded(test.test_set.x), test.test_set.y)
        assert error == pytest.approx(wanted["metrics"]["val/error"])


def begin(folder):
    for name in RESUMED:
        train(name, f"{folder}/{name}", epochs=2)


# Mistakes


def mistakes():
    found = []
    few = regression(n=2, test=2)
    for machine in (eigenpro(), kl.GeneralKernelMachine(LAPLACIAN, 2)):
        try:
            fit_on_ranks(machine, few)
        except kl.InputError as error:
            found.append(str(error))
    return found


def fit_on_ranks(machine, data, **options):
    quiet_trainer(1, **{**on(), **options}).fit(machine, datamodule=data)


def test_fewer_rows_than_ranks():
    rows, centers = on_ranks(3, mistakes)[0]
    assert "2 training rows are fewer than the 3 ranks: use fewer devices" in rows
    assert "2 centers are fewer than the 3 ranks: use fewer devices" in centers


def other_strategy():
    try:
        fit_on_ranks(eigenpro(), regression(), strategy="ddp")
    except kl.InputError as error:
        return str(error)


def test_another_strategy_is_refused():
    assert 'use Trainer(strategy="kernel_parallel")' in on_ranks(2, other_strategy)[1]


# Plans without the others


def planned(ranks=None):
    """Memory by item of each machine on rank 0."""
    found = {}
    for make in (eigenpro, eigenpro_4, gradients):
        machine, data = make(), DigitsDataModule(label_noise=0.1)
        machine.ranks = ranks or here()
        data.setup()
        machine.take(data)
        found[make.__name__] = dict(machine.memory.items)
    return found


def test_a_plan_for_several_ranks_has_the_memory_of_one_of_them():
    assert planned(FirstOfMany(2)) == on_ranks(2, planned)[0]


@pytest.mark.parametrize(("asked", "threads"), [(None, 2), ("3", 4)])
def test_a_plan_has_the_threads_that_a_rank_has(monkeypatch, asked, threads):
    """Lightning gives each rank its part of the cores, unless the environment says how many."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    found = [4]
    monkeypatch.setattr(torch, "set_num_threads", found.append)
    become_first_of(eigenpro(), Processes(2, 1, None), "cpu")
    assert found[-1] == threads


def test_first_of_many_stands_for_all():
    ranks, x = FirstOfMany(3), draw(3, 2)
    assert torch.equal(ranks.all_reduce_sum(x), x)
    assert ranks.all_gather_object(1) == [1, 1, 1]
    assert (
        ranks.all_gather(x, [3, 2, 2]).shape
        == ranks.all_gather_in_order(x, 7).shape
        == ranks.gather_in_order(x, 7).shape
        == (7, 2)
    )
    assert torch.equal(ranks.all_gather_in_order(x, 7)[::3], x)
    assert ranks.broadcast(x) is x
    assert ranks.broadcast_result(lambda: 5) == 5
    assert ranks.received > 0


def test_ranks_in_one_memory_share_what_is_free(monkeypatch):
    monkeypatch.setattr("kl.system.memory.free_memory", lambda device: 8000)
    assert [parse_memory("auto", sharing=size) for size in (1, 4)] == [4000, 1000]
    assert parse_memory("1KB", sharing=4) == 1000


def test_a_solver_that_knows_of_no_ranks_is_refused_on_several():
    class Alone(kl.KernelMachine):
        shares_ranks = False

    machine = Alone()
    machine._trainer = SimpleNamespace(strategy=kl.KernelParallelStrategy(), world_size=2)
    with pytest.raises(kl.InputError, match=r"Alone trains on one device, .*shares_ranks is False.*use devices=1"):
        machine._join_ranks()
