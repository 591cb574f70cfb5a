"""Steps of EigenPro 2 recorded as a CUDA graph, which starts all operations of a step at once.

A step starts some fifty operations on the device. Where they are short, as with K kept, the CPU needs longer to start
them than the device to do them. A recorded step reads and writes the addresses and takes the numbers of the time when
it was recorded, so it is recorded again when one of them has changed. Each record is compared with a step as it is
before it is used.

No GPU has run it yet: tests run it on a CPU, with a stand-in for the graph. So steps are recorded only where the
environment variable KL_GRAPH is 1; docs/how/gpus.md.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from kl.rows.rows import Rows
from kl.system.clock import untimed

log = logging.getLogger(__name__)

SWITCH = "KL_GRAPH"  # the environment variable; 1 asks for recorded steps
TOLERATED = 2.0**-10  # of the largest change of a tensor in a step; another algorithm of a product makes 2^-20 of it

Steps: TypeAlias = Any
"""An `EigenProIteration`, whose module imports this one."""


class CudaRecorder:
    """Records work on one CUDA device.

    Args:
        device: the device.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)

    @staticmethod
    def serves(device: torch.device) -> bool:
        """Whether there are graphs on this device."""
        return device.type == "cuda"

    def run(self, work: Callable[[], object]) -> None:
        """Do the work where `record` will record it, so that libraries have set up there what they need."""
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with torch.cuda.stream(self._stream):
            work()
        torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)

    def record(self, work: Callable[[], object]) -> Callable[[], None]:
        """Record the work without doing it; returns what does it.

        Raises:
            RuntimeError: the work waits for the device, or does what else no graph can hold.
        """
        graph = torch.cuda.CUDAGraph()
        # Other threads may copy batches to the device meanwhile. Older versions of torch stay on the stream of a record
        # that failed, so the stream is chosen and left here, too.
        with (
            torch.cuda.stream(self._stream),
            torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"),
        ):
            work()
        return graph.replay


class Record(NamedTuple):
    """A recorded step."""

    rows: Tensor
    """The rows that a replay takes, shape (m,)."""
    replay: Callable[[], None]
    last_step: tuple[Tensor, Tensor, Tensor | None]
    """What the step leaves in `EigenProIteration.last_step`."""


class StepGraph:
    """Takes steps of one iteration by a graph: the first of its kind as it is; the second is recorded, others replayed.

    Attributes:
        recorded: how often a step was recorded.
    """

    recorder = CudaRecorder

    def __init__(self) -> None:
        self.recorded = 0
        self._wanted = os.environ.get(SWITCH) == "1"
        self._recorder: CudaRecorder | None = None
        self.forget()

    def forget(self) -> None:
        """Free the record and the memory of its step; a later step is recorded again."""
        self._kind: tuple[float | int, ...] = ()
        self._record: Record | None = None

    def serves(self, steps: Steps, rows: Tensor, y: Tensor | None) -> bool:
        """Whether a step of the iteration on these rows can be recorded.

        It must be a full batch with the run's targets; no other length of batches is worth a record. Where some rows of
        K are kept, the sizes of tensors depend on the batch. Clocks wait for the device within the step.
        """
        if not self._wanted or steps.guard is None or y is not None or steps.ranks.size > 1:
            return False
        whole = len(steps.fitted.matrix.kept) in (0, steps.n)
        full = len(rows) == steps.plan.batch_size
        return whole and full and steps.clock is untimed and self.recorder.serves(steps.alpha.device)

    def take(
        self,
        steps: Steps,
        rows: Tensor,  # shape: (m,)
    ) -> None:
        """One step of the iteration on these rows, for which `serves` is true."""
        kind = kind_of(steps)
        if kind != self._kind:
            self.forget()
            self._kind = kind
            steps.take_step(rows)
        elif self._record is None:
            self._make_record(steps, rows)
        else:
            _repeat(steps, self._record, rows)

    def _make_record(self, steps: Steps, rows: Tensor) -> None:
        """Take the step as it is, record it for other rows, and compare what both make of the same weights."""
        self._recorder = self._recorder or self.recorder(steps.alpha.device)
        state = (steps.alpha.detach(), steps.fitted.values, steps.fitted.pending)
        before = [tensor.clone() for tensor in state]
        self._recorder.run(lambda: steps.take_step(rows))
        wanted, last_step = [tensor.clone() for tensor in state], steps.last_step
        _set(state, before)
        others = torch.arange(len(rows), device=steps.alpha.device)
        try:
            replay = self._recorder.record(lambda: steps.take_step(others))
            record = Record(others, replay, steps.last_step)
            _repeat(steps, record, rows)
            reason = _difference(state, before, wanted)
        except Exception as error:  # a kernel or a version of torch whose work no graph can hold
            cause = error.__context__ or error
            reason = f"{type(cause).__name__}: {cause}".split("\n")[0]
        if reason is None:
            self._record, self.recorded = record, self.recorded + 1
            log.info("steps of %d rows are replayed from a CUDA graph", len(rows))
            return
        self._wanted = False
        log.warning("operations of a step start one by one, because their CUDA graph fails here: %s", reason)
        _set(state, wanted)
        steps.mark_step(*last_step)


def _repeat(steps: Steps, record: Record, rows: Tensor) -> None:
    record.rows.copy_(rows)
    record.replay()
    steps.mark_step(*record.last_step)


def _set(state: tuple[Tensor, ...], values: list[Tensor]) -> None:
    for tensor, value in zip(state, values, strict=True):
        tensor.copy_(value)


def kind_of(steps: Steps) -> tuple[float | int, ...]:
    """The numbers that a record takes from the iteration, and the addresses of the tensors that it reads and writes."""
    fitted, matrix, own = steps.fitted, steps.fitted.matrix, steps.preconditioner
    tensors = [steps.alpha, steps.targets, steps._position, steps._ridges, fitted.values, fitted.pending]
    tensors += [fitted.columns, matrix.kept, own.vectors, own.weights]
    tensors += [*_tensors_of(matrix.rows), *_tensors_of(fitted.subsample)]
    numbers = steps.step_size, steps.optimizer.param_groups[0]["batch_size"], steps.plan.ridge, len(matrix.kept)
    return *numbers, *(0 if tensor is None else tensor.data_ptr() for tensor in tensors)


def _tensors_of(rows: Rows) -> list[Tensor]:
    found = [rows.data, rows.sq_norm]
    found += [] if rows.codes is None else [rows.codes.values, rows.codes.centred]
    return found + ([] if rows.digits is None else [rows.digits.values, rows.digits.scale])


def _difference(state: tuple[Tensor, ...], before: list[Tensor], wanted: list[Tensor]) -> str | None:
    """What is wrong with a replayed step, in words; None if it is right."""
    for found, old, right in zip(state, before, wanted, strict=True):
        error, size = float((found - right).abs().max()), float((right - old).abs().max())
        if not error <= TOLERATED * size:  # true for NaN, too
            return f"a replayed step is off by {error:.2g}, where it changes values by {size:.2g}"
    return None
