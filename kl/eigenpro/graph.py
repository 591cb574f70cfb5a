"""Steps of EigenPro 2 recorded as a CUDA graph, which starts all operations of a step at once.

A step starts some fifty operations on the device, and at batches of a GPU's size starting them takes longer than they
do. A recorded step reads and writes the addresses and takes the numbers of the time when it was recorded, so it is
recorded again when one of them has changed. Each record is compared with a step as it is before it is used.

No GPU has run it yet: tests run it on a CPU, with a stand-in for the graph. So steps are recorded only where the
environment variable KL_GRAPH is 1; docs/how/gpus.md.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kl.system.clock import untimed

if TYPE_CHECKING:
    from kl.eigenpro.iteration import EigenProIteration

log = logging.getLogger(__name__)

SWITCH = "KL_GRAPH"  # the environment variable; 1 asks for recorded steps
TOLERATED = 2.0**-10  # of the largest change of a tensor in a step; another algorithm of a product makes 2^-20 of it


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
        # Other threads may copy batches to the device meanwhile.
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            work()
        return graph.replay


class StepGraph:
    """Takes steps of one iteration by a graph: the first of its kind as it is; the second is recorded, others replayed.

    Attributes:
        recorded: how often a step was recorded.
    """

    recorder = CudaRecorder

    def __init__(self) -> None:
        self.recorded = 0
        self._wanted = os.environ.get(SWITCH) == "1"
        self._kind: tuple[float, ...] = ()
        self._replay: Callable[[], None] | None = None

    def serves(self, it: EigenProIteration, rows: Tensor, y: Tensor | None) -> bool:
        """Whether a step of the iteration on these rows can be recorded.

        It must be a full batch with the run's targets; no other length of batches is worth a record. Where some rows of
        K are kept, the sizes of tensors depend on the batch. Clocks wait for the device within the step.
        """
        if not self._wanted or it.guard is None or y is not None or it.clock is not untimed or it.ranks.size > 1:
            return False
        whole = len(it.fitted.matrix.kept) in (0, it.n)
        return whole and len(rows) == it.plan.batch_size and self.recorder.serves(it.alpha.device)

    def take(
        self,
        it: EigenProIteration,
        rows: Tensor,  # shape: (m,)
    ) -> None:
        """One step of the iteration on these rows, for which `serves` is true."""
        kind = _kind_of(it)
        if kind != self._kind:
            self._kind, self._replay = kind, None
            it.take_step(rows)
        elif self._replay is None:
            self._record(it, rows)
        else:
            self._repeat(it, rows, self._replay)

    def _repeat(self, it: EigenProIteration, rows: Tensor, replay: Callable[[], None]) -> None:
        self._rows.copy_(rows)
        replay()
        assert self._last is not None  # recording it was a step
        it.mark_step(*self._last)

    def _record(self, it: EigenProIteration, rows: Tensor) -> None:
        """Take the step as it is, record it for other rows, and compare what both make of the same weights."""
        state = (it.alpha.detach(), it.fitted.values, it.fitted.pending)
        before = [tensor.clone() for tensor in state]
        recorder = self.recorder(it.alpha.device)
        recorder.run(lambda: it.take_step(rows))
        wanted, last = [tensor.clone() for tensor in state], it.last_step
        for tensor, value in zip(state, before, strict=True):
            tensor.copy_(value)
        self._rows = torch.arange(len(rows), device=it.alpha.device)
        try:
            replay = recorder.record(lambda: it.take_step(self._rows))
            self._last = it.last_step
            self._repeat(it, rows, replay)
            reason = _difference(state, before, wanted)
        except RuntimeError as error:
            reason = str(error).split("\n")[0]
        if reason is None:
            self._replay, self.recorded = replay, self.recorded + 1
            log.info("steps of %d rows are replayed from a CUDA graph", len(rows))
            return
        self._wanted = False
        log.warning("operations of a step start one by one, because their CUDA graph fails here: %s", reason)
        for tensor, value in zip(state, wanted, strict=True):
            tensor.copy_(value)
        assert last is not None  # the step as it is
        it.mark_step(*last)


def _kind_of(it: EigenProIteration) -> tuple[float, ...]:
    """All numbers and addresses that a record takes from the iteration."""
    fitted, matrix = it.fitted, it.fitted.matrix
    tensors = [it.alpha, it.targets, fitted.values, fitted.pending, matrix.kept, matrix.rows.data]
    tensors += [it.preconditioner.vectors, it.preconditioner.weights]
    return it.step_size, len(matrix.kept), *[tensor.data_ptr() for tensor in tensors]


def _difference(state: tuple[Tensor, ...], before: list[Tensor], wanted: list[Tensor]) -> str | None:
    """What is wrong with a replayed step, in words; None if it is right."""
    for found, old, right in zip(state, before, wanted, strict=True):
        error, size = float((found - right).abs().max()), float((right - old).abs().max())
        if not error <= TOLERATED * size:  # true for NaN, too
            return f"a replayed step is off by {error:.2g}, where it changes values by {size:.2g}"
    return None
