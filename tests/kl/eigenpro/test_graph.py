"""Recorded steps equal the steps themselves; a stand-in records what torch's dispatcher sees, as a CUDA graph does."""

import gc
import logging
import weakref
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from training import fit

import kl
from datamodules import DigitsDataModule
from kl.distributed.ranks import Ranks
from kl.eigenpro import graph
from kl.eigenpro.divergence import DivergenceGuard
from kl.eigenpro.iteration import EigenProIteration
from kl.rows.digits import split
from kl.rows.int8 import encode

WAITS = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default, torch.ops.aten.is_nonzero.default}


class Tape(TorchDispatchMode):
    """The operations of some work, with their tensors; `replay` does them again on the same memory."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in WAITS:
            raise RuntimeError("operation not permitted when stream is capturing")
        found = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, found))
        return found

    def replay(self):
        for func, args, kwargs, before in self.operations:
            found = func(*args, **kwargs)
            for old, new in zip(tree_leaves(before), tree_leaves(found), strict=True):
                if isinstance(new, torch.Tensor) and new.data_ptr() != old.data_ptr():  # neither a view nor in place
                    old.copy_(new)


class Recorder:
    """Stands in for `CudaRecorder` on a CPU; work that is recorded leaves the tensors of `state` as they were."""

    state = ()

    def __init__(self, device):
        pass

    @staticmethod
    def serves(device):
        return True

    def run(self, work):
        work()

    def record(self, work):
        before = [tensor.clone() for tensor in self.state]
        with Tape() as tape:
            work()
        for tensor, value in zip(self.state, before, strict=True):
            tensor.copy_(value)
        return tape.replay


@pytest.fixture
def recorded(monkeypatch):
    """Steps on a CPU are recorded as on a GPU: no compiled code, which the dispatcher does not see, and no reads."""
    monkeypatch.setenv(graph.SWITCH, "1")
    monkeypatch.setattr(graph.StepGraph, "recorder", Recorder)
    monkeypatch.setattr("kl.compiled.best", lambda: None)
    monkeypatch.setattr(DivergenceGuard, "loss_exploded", lambda *_: False)


def problem(floats=False):
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (230, 30), generator=generator) / 255
    y = torch.randn(230, 3, generator=generator)
    return (x + torch.rand(x.shape, generator=generator) if floats else x), y


def made(monkeypatch, wanted="1", kernel=None, floats=False, **options):
    """A run whose state the stand-in knows."""
    monkeypatch.setenv(graph.SWITCH, wanted)
    run = kl.EigenProRun(kernel or kl.Laplacian(2.0), *problem(floats), batch_size=25, subsample=60, **options)
    monkeypatch.setattr(Recorder, "state", (run.alpha, run.fitted.values, run.fitted.pending))
    return run


def trained(run, epochs=3):
    for _ in range(epochs):
        for rows in run.batches():
            run.step(rows)
        run.end_epoch()
    return run.alpha, run.fitted_values(), run.sq_norm_per_class, *run.last_batch


@pytest.mark.parametrize("kept", [230, 0])
@pytest.mark.parametrize("options", [{}, {"ridge": 0.1}, {"floats": True}, {"kernel": kl.ReluNTK(2)}, {"top_q": 0}])
def test_recorded_steps_equal_steps(recorded, monkeypatch, kept, options):
    plain, run = (made(monkeypatch, wanted, memory="1GB", **options) for wanted in "01")
    for each in (plain, run):
        each.fitted.keep_rows(kept)
    wanted, found = trained(plain), trained(run)
    assert (plain.graph.recorded, run.graph.recorded) == (0, 1)
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one, other)
    run.graph.forget()
    assert torch.equal(trained(plain)[0], trained(run)[0])
    assert run.graph.recorded == 2


def test_the_norm_after_every_step(recorded, monkeypatch):
    plain, run = (made(monkeypatch, wanted, memory="1GB") for wanted in "01")
    for rows in run.batches():
        for each in (plain, run):
            each.step(rows)
        assert run.rkhs_norm == plain.rkhs_norm
    assert run.graph.recorded == 1


def test_what_is_recorded_anew(recorded, monkeypatch):
    plain, run = (made(monkeypatch, wanted, memory="1GB") for wanted in "01")
    for each in (plain, run):
        trained(each, 1)
        each.step_size *= 0.5
        trained(each, 1)
        each.fitted.keep_rows(0)
        trained(each, 1)
        for rows in each.batches():
            each.step_size *= 0.99  # no step is like the one before it, so none is recorded
            each.step(rows)
    assert run.graph.recorded == 3
    assert torch.equal(run.alpha, plain.alpha)


def test_what_is_not_recorded(recorded, monkeypatch):
    run = made(monkeypatch, memory="1GB")
    rows, y = torch.arange(25), torch.zeros(25, 3)
    assert run.graph.serves(run, rows, None)
    assert not run.graph.serves(run, rows, y)
    assert not run.graph.serves(run, rows[1:], None)
    run.clock = lambda part: pytest.fail("unused")
    assert not run.graph.serves(run, rows, None)
    other = made(monkeypatch, "0")
    assert not other.graph.serves(other, rows, None)
    partly = made(monkeypatch, memory="1GB")
    partly.fitted.keep_rows(100)
    assert not partly.graph.serves(partly, rows, None)
    shared = made(monkeypatch, memory="1GB")
    shared.fitted.ranks = Ranks(0, 2)
    assert not shared.graph.serves(shared, rows, None)
    inner = EigenProIteration(run.plan, run.preconditioner, run.fitted, run.alpha)  # without a guard
    assert not inner.graph.serves(inner, rows, None)
    monkeypatch.setattr(graph.StepGraph, "recorder", graph.CudaRecorder)
    other = made(monkeypatch)
    assert not other.graph.serves(other, rows, None)  # its device is a CPU


TENSORS = {
    "alpha": lambda run: run.alpha,
    "targets": lambda run: run.targets,
    "_position": lambda run: run._position,
    "_ridges": lambda run: run._ridges,
    "fitted.values": lambda run: run.fitted.values,
    "fitted.pending": lambda run: run.fitted.pending,
    "fitted.columns": lambda run: run.fitted.columns,
    "fitted.matrix.kept": lambda run: run.fitted.matrix.kept,
    "fitted.matrix.rows.data": lambda run: run.fitted.matrix.rows.data,
    "fitted.subsample.data": lambda run: run.fitted.subsample.data,
    "preconditioner.vectors": lambda run: run.preconditioner.vectors,
    "preconditioner.weights": lambda run: run.preconditioner.weights,
}


@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_at_another_address_is_recorded_anew(recorded, monkeypatch, name):
    run = made(monkeypatch, memory="1GB", ridge=0.1, weights=torch.linspace(1, 2, 230))
    before, tensor = graph.kind_of(run), TENSORS[name](run)
    assert graph.kind_of(run) == before
    owner, _, attribute = name.rpartition(".")
    holder = run
    for part in owner.split(".") if owner else []:
        holder = getattr(holder, part)
    object.__setattr__(holder, attribute, tensor.clone())
    assert graph.kind_of(run) != before


def test_numbers_that_are_recorded_anew(recorded, monkeypatch):
    run = made(monkeypatch, memory="1GB")
    kinds = [graph.kind_of(run)]
    run.step_size *= 0.5
    kinds.append(graph.kind_of(run))
    run.optimizer.param_groups[0]["batch_size"] += 1
    kinds.append(graph.kind_of(run))
    assert len(set(kinds)) == 3


@pytest.mark.parametrize("kind", ["codes", "digits"])
def test_integers_at_another_address_are_recorded_anew(recorded, monkeypatch, kind):
    run = made(monkeypatch)
    rows, images = run.fitted.matrix.rows, torch.randint(0, 256, (300, 64)) / 255
    first, second = (split(images) if kind == "digits" else encode(images) for _ in range(2))
    assert first is not None
    found = []
    for integers in (first, second):
        run.fitted.matrix.rows = replace(rows, **{kind: integers})
        found.append(graph.kind_of(run))
    assert found[0] != found[1]


def test_hooks_of_the_optimizer_run_once_a_step(recorded, monkeypatch):
    run, calls = made(monkeypatch, memory="1GB"), []
    run.optimizer.register_step_post_hook(lambda *_: calls.append(None))
    for count, rows in enumerate(run.batches(), 1):
        run.step(rows)
        assert len(calls) == count
    assert run.graph.recorded == 1


def test_last_batches_stay_as_they_were(recorded, monkeypatch):
    plain, run = (made(monkeypatch, wanted, memory="1GB") for wanted in "01")
    found = []
    for each in (plain, run):
        seen = []
        for rows in each.batches():
            each.step(rows)
            seen.append(each.last_batch)
        found.append([part for pair in seen for part in pair])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_the_cuda_recorder_calls_torch_as_it_should(monkeypatch):
    """With stand-ins for torch's classes; what they do is known on a GPU alone."""
    calls = []

    class Stream:
        def __init__(self, device):
            self.device = device

        def wait_stream(self, other):
            calls.append((self.name, "waits for", other.name))

        name = "ours"

    current = Stream("cuda:0")
    current.name = "current"

    @contextmanager
    def entered(what, *args, **options):
        calls.append(("enter", what, options))
        yield
        calls.append(("leave", what))

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: entered(stream.name))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay="replay"))
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, **options: entered("graph", **options))
    recorder = graph.CudaRecorder("cuda:0")
    recorder.run(lambda: calls.append("work"))
    assert calls == [
        ("ours", "waits for", "current"),
        ("enter", "ours", {}),
        "work",
        ("leave", "ours"),
        ("current", "waits for", "ours"),
    ]
    calls.clear()
    assert recorder.record(lambda: calls.append("work")) == "replay"
    options = {"stream": recorder._stream, "capture_error_mode": "thread_local"}
    left = [("leave", "graph"), ("leave", "ours")]
    assert calls == [("enter", "ours", {}), ("enter", "graph", options), "work", *left]


class Wrong(Recorder):
    """Replays the step, and adds 1 to a weight."""

    def record(self, work):
        replay, (alpha, *_) = super().record(work), self.state
        return lambda: (replay(), alpha[229].add_(1))


class Failing(Recorder):
    """Finds an operation that no graph can hold; torch then says no more than that an earlier one failed."""

    def record(self, work):
        try:
            return super().record(lambda: (work(), float(self.state[0].sum())))
        except RuntimeError:
            raise RuntimeError("operation failed due to a previous error during capture")  # noqa: B904


@pytest.mark.parametrize(
    ("recorder", "reason"),
    [(Wrong, "a replayed step is off by"), (Failing, "RuntimeError: operation not permitted when stream is capturing")],
)
def test_a_wrong_record_is_refused(recorded, monkeypatch, caplog, recorder, reason):
    monkeypatch.setattr(graph.StepGraph, "recorder", recorder)
    plain, run = (made(monkeypatch, wanted, memory="1GB") for wanted in "01")
    with caplog.at_level(logging.WARNING, logger="kl"):
        for rows in run.batches():
            for each in (plain, run):
                each.step(rows)
            for one, other in zip(run.last_batch, plain.last_batch, strict=True):
                assert torch.equal(one, other)
            assert run.rkhs_norm == plain.rkhs_norm
        wanted, found = trained(plain), trained(run)
    assert run.graph.recorded == 0
    (message,) = caplog.messages
    assert message.startswith("operations of a step start one by one, because their CUDA graph fails here: " + reason)
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one, other)


def test_a_run_is_freed_at_once(recorded, monkeypatch):
    """A run that only the garbage collector frees would hold its kernel matrix beside that of the next."""
    gc.collect()
    run = made(monkeypatch, memory="1GB")
    trained(run, 1)
    assert run.graph.recorded == 1
    matrix = weakref.ref(run.fitted.matrix)
    gc.disable()
    try:
        del run
        assert matrix() is None
    finally:
        gc.enable()


def test_lightning_counts_recorded_steps(recorded, monkeypatch):
    def fitted(wanted):
        monkeypatch.setenv(graph.SWITCH, wanted)
        machine = kl.KernelMachine(kl.Laplacian(4.0), batch_size=50, subsample=100)
        start = machine.on_train_start

        def on_train_start():
            start()
            monkeypatch.setattr(Recorder, "state", (machine.alpha.detach(), *machine.fitted.buffers()))

        machine.on_train_start = on_train_start
        return machine, fit(machine, DigitsDataModule(train_size=320, test_size=100), 3)

    (plain, one), (machine, other) = fitted("0"), fitted("1")
    assert machine.run.graph.recorded == 1
    assert machine.run.graph._record is None  # its memory is free after training
    assert one.global_step == other.global_step == 21
    assert torch.equal(machine.alpha, plain.alpha)
    assert machine.rkhs_norm == plain.rkhs_norm
    assert machine.train_metrics == plain.train_metrics
