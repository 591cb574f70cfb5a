"""What R ranks send each other, and a model of how long they take: few numbers, each of them measured or stated.

A step on a batch of m rows multiplies m p / R kernel values with weights on every rank, p the centres of all (p = n for
EigenPro 2). Ranks exchange the batch, at most m d features and m c weights or values, and the q c coefficients of the
preconditioner, whatever n and p are. So computing shrinks with R and the exchange does not, and the exchange takes over
where a rank has few centres.

    t_step = max(flops / rate, bytes read / memory bandwidth) + overhead + (R > 1) (bytes / link + k latency log2 R)

The seconds of evaluations, of projections (EigenPro 3 and 4) and of the set-up are not part of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from kl.rows.int8 import MULTIPLE

CODE_BYTES = 32  # of a row of 8-bit features beside its values: sums, squares, scale, shift and |x|^2
COLLECTIVES = 4  # of a step: features, weights, and sums of the coefficients and the norm
COLLECTIVES_KEPT = 3  # where K is kept no features are sent
COLLECTIVES_GENERAL = 3  # features, and sums of values and coefficients
COLLECTIVES_CPU = 1  # more: the sum of the loss, which a GPU is not made to wait for


@dataclass(frozen=True)
class Device:
    """One of the devices."""

    flops: float
    """A second, of kernel products."""
    bandwidth: float
    """Bytes a second, of its memory."""
    memory: int
    """Bytes that a run may take."""
    overhead: float = 5e-4
    """Seconds of a step beside its products: Python, Lightning and callbacks."""


@dataclass(frozen=True)
class Link:
    """What connects them."""

    bandwidth: float
    """Bytes a second that a rank receives."""
    latency: float
    """Seconds of the smallest collective between two ranks."""


@dataclass(frozen=True)
class Problem:
    """A run, in the letters of `kl`."""

    n: int
    d: int
    c: int
    m: int
    s: int
    q: int
    p: int | None = None
    """Centres of a general kernel model; None is EigenPro 2, whose centres are the n rows."""
    period: int | None = None
    """Steps between projections of a general model by a factor on rank 0; None leaves out what they exchange."""
    coded: bool = False
    """Whether features are 8-bit integers, which of a general model every CPU rank has encoded: they are not sent."""

    @property
    def centers(self) -> int:
        """Of all ranks."""
        return self.n if self.p is None else self.p


@dataclass(frozen=True)
class Prediction:
    """Of one rank."""

    keeps_kernel: bool
    """Whether its columns of K(X, X) fit in its memory."""
    memory: int
    """Bytes on its device: centres, weights, fitted values, K(X_r, X_S) and, where kept, K(X, X_r)."""
    computing: float
    """Seconds of a step."""
    exchange: float
    """Seconds of a step."""
    epoch: float
    """Seconds."""


# Stated, not measured: half of the float32 peak and of the memory's bandwidth of an H200, and a link of 400 Gbit/s for
# each GPU, whose collectives take 20 microseconds a hop.
GPU = Device(flops=33e12, bandwidth=2.4e12, memory=120 * 10**9)
GPU_LINK = Link(bandwidth=50e9, latency=20e-6)


def row_bytes(problem: Problem) -> int:
    """Bytes of a batch row's features as they are sent, with its squared norm."""
    if problem.p is not None:
        return 0 if problem.coded else 4 * problem.d  # as the data has it
    return -(-problem.d // MULTIPLE) * MULTIPLE + CODE_BYTES if problem.coded else 4 * problem.d + 4


def step_bytes(problem: Problem, kept: float = 0.0) -> float:
    """Bytes that a rank receives in a step: of what is gathered all rows, of a sum the sum.

    m (d' + 4 c) + 4 q c + 8 c + 8 with d' bytes of features a row, fewer where a share `kept` of K's rows is kept;
    of general models m (d' + 4 c) + 4 q c, and 16 p c for a projection every T steps.
    """
    m, c, q = problem.m, problem.c, problem.q
    if problem.p is not None:
        projected = 16 * problem.p * c / problem.period if problem.period else 0
        return m * (row_bytes(problem) + 4 * c) + 4 * q * c + projected
    return m * ((1 - kept) * row_bytes(problem) + 4 * c) + 4 * q * c + 8 * c + 8


def exchange_seconds(problem: Problem, link: Link, ranks: int, kept: bool, on_cpu: bool = False) -> float:
    """Seconds of a step that ranks exchange in, as if nothing else were done meanwhile.

    Rings: of a gather (R - 1)/R of the bytes come in, of a sum twice that; latencies add up along a tree.
    """
    if ranks == 1:
        return 0.0
    summed = 4 * problem.q * problem.c
    summed += 4 * problem.m * problem.c if problem.p is not None else 0
    received = (step_bytes(problem, float(kept)) + summed) * (ranks - 1) / ranks
    own = COLLECTIVES_KEPT if kept else COLLECTIVES
    collectives = (COLLECTIVES_GENERAL if problem.p is not None else own) + COLLECTIVES_CPU * on_cpu
    return received / link.bandwidth + collectives * link.latency * math.ceil(math.log2(ranks))


def predict(problem: Problem, device: Device, link: Link, ranks: int) -> Prediction:
    """The model above for R ranks; of EigenPro 2 K is kept where every rank's part of it fits."""
    n, d, c, m, s, q = problem.n, problem.d, problem.c, problem.m, problem.s, problem.q
    p = problem.centers
    own = -(-p // ranks)
    rest = own * (4 * d + 4 * s + 56 * c) + 4 * min(p, s) * d
    keeps = problem.p is None and rest + 4 * own * n <= device.memory
    values = m * own
    flops = values * 2 * c + m / ranks * (4 * s * c) + 6 * s * q * c + (0 if keeps else values * 2 * d)
    computing = max(flops / device.flops, 4 * values / device.bandwidth if keeps else 0.0)
    exchange = exchange_seconds(problem, link, ranks, keeps)
    epoch = math.ceil(n / m) * (computing + device.overhead + exchange)
    return Prediction(keeps, rest + (4 * own * n if keeps else 0), computing, exchange, epoch)


def exchange_dominates_from(problem: Problem, device: Device, link: Link, most: int = 2**20) -> int | None:
    """The least power of two of ranks whose exchange takes longer than their computing; None up to `most`."""
    ranks = 2
    while ranks <= most:
        found = predict(problem, device, link, ranks)
        if found.exchange > found.computing:
            return ranks
        ranks *= 2
    return None
