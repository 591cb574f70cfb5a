"""The processes that share a run: which of n rows each rank owns, and the few collectives that training needs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from kl.rows.digits import split
from kl.rows.int8 import PER_ROW, Codes
from kl.rows.rows import Rows

T = TypeVar("T")


class Ranks:
    """This process among R; rank r owns the rows r, r + R, r + 2R, ... of n, so its k-th row is row r + k R.

    With this order the first s rows, EigenPro's subsample, are spread over the ranks as evenly as all rows, for every
    n, s and R. Every collective must be called on all ranks, in the same order. With R = 1 the collectives return at
    once, and no process group is needed.

    Args:
        rank: this process, from 0.
        size: R, the number of ranks.
        sharing: the number of ranks that use the same memory, as the ranks on one machine's CPU do.

    Attributes:
        received: bytes that the collectives have delivered to this rank so far: all rows of a gather, and the sum of an
            all_reduce.
    """

    def __init__(self, rank: int = 0, size: int = 1, sharing: int = 1) -> None:
        self.rank, self.size, self.sharing = rank, size, sharing
        self.received = 0

    # Which rows belong to which rank

    def local_rows(self, n: int) -> slice:
        """The rows of n that this rank owns."""
        return slice(self.rank, n, self.size)

    def count(self, n: int, rank: int | None = None) -> int:
        """How many of n rows a rank owns; None is this rank."""
        return len(range(self.rank if rank is None else rank, n, self.size))

    def positions(self, n: int, device: torch.device | str = "cpu") -> Tensor:
        """The indices of the rows of n that this rank owns, shape (count(n),)."""
        return torch.arange(n, device=device)[self.local_rows(n)]

    # Collectives

    def all_reduce_sum(self, value: Tensor) -> Tensor:
        """The sum over the ranks, the same to the bit on all ranks; overwrites `value`."""
        return self.begin_all_reduce_sum(value)()

    def begin_all_reduce_sum(self, value: Tensor) -> Callable[[], Tensor]:
        """Start `all_reduce_sum`; the returned function waits for the sum. The caller may do other work meanwhile."""
        if self.size == 1:
            return lambda: value
        value = value.contiguous()
        work = dist.all_reduce(value, async_op=True)
        self.received += value.numel() * value.element_size()

        def wait() -> Tensor:
            work.wait()
            return value

        return wait

    def all_reduce_max(self, value: float) -> float:
        """The largest number over the ranks; NaN if it is NaN on one rank."""
        return max(self.all_gather_object(value), key=lambda one: (one != one, one))

    def all_reduce_min(self, value: float) -> float:
        """The smallest number over the ranks; NaN if it is NaN on one rank."""
        return -self.all_reduce_max(-value)

    def all_reduce_count(self, value: int) -> int:
        """The sum of a whole number over the ranks."""
        return sum(self.all_gather_object(value))

    def all_gather_object(self, value: T) -> list[T]:
        """The plain value of every rank, in the order of the ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def all_gather(
        self,
        local: Tensor,  # shape: (counts[rank], ...)
        counts: Sequence[int],
    ) -> Tensor:
        """The rows of all ranks, rank after rank, shape (sum of counts, ...).

        Args:
            local: the rows of this rank.
            counts: how many rows each rank gives.
        """
        return self.begin_all_gather(local, counts)()

    def begin_all_gather(
        self,
        local: Tensor,  # shape: (counts[rank], ...)
        counts: Sequence[int],
    ) -> Callable[[], Tensor]:
        """Start `all_gather`; the returned function waits for the rows. The caller may do other work meanwhile."""
        if self.size == 1:
            return lambda: local
        most = max(counts)
        padded = local.new_zeros(most, *local.shape[1:])
        padded[: len(local)] = local
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        work = dist.all_gather(parts, padded, async_op=True)
        self.received += sum(part.numel() * part.element_size() for part in parts)

        def wait() -> Tensor:
            work.wait()
            return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

        return wait

    def begin_all_gather_rows(self, local: Rows, counts: Sequence[int]) -> Callable[[], Rows]:
        """Start to gather feature rows, rank after rank; 8-bit features are sent as the integers that they are.

        Digits are not sent, as every rank finds the same ones. The returned function waits for the rows. The caller may
        do other work meanwhile.
        """
        if self.size == 1:
            return lambda: local
        codes = local.codes
        if codes is None:
            floats = self._begin_packed([local.data, local.sq_norm], counts)

            def wait() -> Rows:
                data, sq_norm = floats()
                digits = None if local.digits is None else split(data)
                return Rows(data, sq_norm, None, local.rounded, digits)

            return wait
        integers = self._begin_packed([local.sq_norm, *(getattr(codes, name) for name in PER_ROW)], counts)

        def wait_and_decode() -> Rows:
            sq_norm, *parts = integers()
            gathered = Codes(**dict(zip(PER_ROW, parts, strict=True)), grid=codes.grid)
            return Rows(gathered.decode(local.data.shape[1], local.data.dtype), sq_norm, gathered, local.rounded)

        return wait_and_decode

    def _begin_packed(self, tensors: Sequence[Tensor], counts: Sequence[int]) -> Callable[[], list[Tensor]]:
        """Start to gather several tensors of the same rows in one message, as bytes."""
        packed = [(t.flatten(1) if t.ndim > 1 else t[:, None]).contiguous().view(torch.uint8) for t in tensors]
        widths, n = [part.shape[1] for part in packed], sum(counts)
        gathered = self.begin_all_gather(torch.cat(packed, dim=1), counts)

        def wait() -> list[Tensor]:
            parts = gathered().split(widths, dim=1)
            return [
                part.contiguous().view(t.dtype).reshape(n, *t.shape[1:]) for part, t in zip(parts, tensors, strict=True)
            ]

        return wait

    def all_gather_in_order(
        self,
        local: Tensor,  # shape: (count(n), ...)
        n: int,
    ) -> Tensor:
        """All n rows in their order, on every rank, shape (n, ...)."""
        if self.size == 1:
            return local
        counts = [self.count(n, rank) for rank in range(self.size)]
        parts = self.all_gather(local, counts).split(counts)
        rows = local.new_empty(n, *local.shape[1:])
        for rank, part in enumerate(parts):
            rows[rank :: self.size] = part
        return rows

    def gather_in_order(
        self,
        local: Tensor,  # shape: (count(n), ...)
        n: int,
    ) -> Tensor:
        """All n rows in their order on the CPU of rank 0, shape (n, ...); the other ranks get `local` back.

        The ranks send one after another, so that rank 0 holds one rank's rows beside the result, not all of them twice.
        """
        if self.size == 1:
            return local
        if self.rank > 0:
            dist.send(local.contiguous(), dst=0)
            return local
        rows = torch.empty(n, *local.shape[1:], dtype=local.dtype)
        rows[:: self.size] = local.cpu()
        for rank in range(1, self.size):
            part = local.new_empty(self.count(n, rank), *local.shape[1:])
            dist.recv(part, src=rank)
            self.received += part.numel() * part.element_size()
            rows[rank :: self.size] = part.cpu()
        return rows

    def broadcast_result(self, work: Callable[[], T]) -> T:
        """What `work` returns on rank 0, or the error that it raises there, on every rank.

        Only rank 0 calls `work`; the other ranks wait without a time limit, because an exact solve may take hours.
        """
        if self.size == 1:
            return work()
        found: list[Any] = [None, None]
        # A barrier with the usual timeout: a rank that does not come is noticed here, not after the 30 days below.
        self.all_gather_object(None)
        group = self._patient_group
        if self.rank == 0:
            try:
                found[0] = work()
            except Exception as error:  # the other ranks must not wait for a result that will not come
                found[1] = error
        dist.broadcast_object_list(found, src=0, group=group)
        if found[1] is not None:
            raise found[1]
        return found[0]

    @functools.cached_property
    def _patient_group(self) -> Any:
        """All ranks, with a timeout of 30 days instead of the usual one: an exact solve on rank 0 may take hours."""
        return dist.new_group(backend="gloo", timeout=timedelta(days=30))

    def broadcast(self, value: Tensor) -> Tensor:
        """The tensor of rank 0, on every rank; overwrites `value`, which has the same shape and dtype on all ranks."""
        if self.size > 1:
            value = value.contiguous()
            dist.broadcast(value, src=0)
            self.received += value.numel() * value.element_size()
        return value


class FirstOfMany(Ranks):
    """Rank 0 of R ranks, simulated without the others: every collective answers with what rank 0 has.

    `kl plan` makes the plan of several ranks with this class, in one process.

    Args:
        size: R, the number of ranks.
        sharing: the number of ranks that use the same memory, see `Ranks`.
    """

    def __init__(self, size: int, sharing: int = 1) -> None:
        super().__init__(0, size, sharing)

    def begin_all_reduce_sum(self, value: Tensor) -> Callable[[], Tensor]:
        """The value itself, as if the other ranks had 0."""
        self.received += value.numel() * value.element_size()
        return lambda: value

    def all_gather_object(self, value: T) -> list[T]:
        """The value, R times."""
        return [value] * self.size

    def begin_all_gather(
        self,
        local: Tensor,  # shape: (counts[0], ...)
        counts: Sequence[int],
    ) -> Callable[[], Tensor]:
        """The rows of rank 0 repeated in place of all rows, shape (sum of counts, ...)."""
        self.received += self.size * local.numel() * local.element_size()
        return lambda: local[torch.arange(sum(counts), device=local.device) % max(1, len(local))]

    def gather_in_order(
        self,
        local: Tensor,  # shape: (count(n), ...)
        n: int,
    ) -> Tensor:
        """The rows of rank 0 repeated in place of all rows, shape (n, ...), on the CPU."""
        return self.all_gather_in_order(local, n).cpu()

    def broadcast(self, value: Tensor) -> Tensor:
        """The tensor of rank 0, which is `value`."""
        return value

    def broadcast_result(self, work: Callable[[], T]) -> T:
        """What `work` returns."""
        return work()


class Share(NamedTuple):
    """The rows of a batch that this rank has loaded; the other ranks have loaded the other rows."""

    local_rows: Tensor
    """Shape (count(batch_rows), ...)."""
    batch_rows: int
    """Rows of the whole batch."""


class Batch:
    """A batch of m of the n training rows, ordered rank after rank, and which of the m rows this rank owns.

    Attributes:
        positions: the indices of the training rows, shape (m,), each at most once; with one rank in the order given.
        counts: how many of the m rows each rank owns.
        local_slice: the places in `positions` that this rank owns.
        local: for each of these the index among this rank's rows, shape (counts[rank],).
    """

    def __init__(
        self,
        positions: Tensor,  # shape: (m,), the same on all ranks
        ranks: Ranks,
    ) -> None:
        self.ranks = ranks
        if ranks.size == 1:
            self.positions = self.local = positions
            self.counts, self.local_slice = [len(positions)], slice(0, len(positions))
            return
        owner = positions % ranks.size
        self.positions = positions[owner.argsort(stable=True)]
        self.counts = torch.bincount(owner, minlength=ranks.size).tolist()
        start = sum(self.counts[: ranks.rank])
        self.local_slice = slice(start, start + self.counts[ranks.rank])
        self.local = self.positions[self.local_slice] // ranks.size

    def __len__(self) -> int:
        return len(self.positions)

    def all_gather(
        self,
        local: Tensor,  # shape: (counts[rank], ...)
    ) -> Tensor:
        """The rows of the batch from all ranks, in the order of `positions`, shape (m, ...)."""
        return self.ranks.all_gather(local, self.counts)

    def begin_all_gather_rows(self, rows: Rows) -> Callable[[], Rows]:
        """Start to gather the features of the batch from the `rows` of every rank; the returned function waits."""
        return self.ranks.begin_all_gather_rows(rows[self.local], self.counts)


def encode_shared(
    first: Tensor,  # the first rows of all ranks, shape: (k, d)
    local: Tensor,  # the rows of this rank, shape: (n_r, d)
    precision: str,
    ranks: Ranks,
) -> tuple[Rows, Rows]:
    """Encode both as `Rows` on one scale, so that kernel products between them and with other ranks' rows agree."""
    head = Rows.of(first, precision=precision)
    rows = Rows.of(local, like=head)
    # 8-bit features of all ranks must be on one scale, which the first rows may not show; and ranks that disagree
    # about digits, which a measurement decides, would compute the same thing with other rounding.
    scales = {(one.codes and (one.codes.grid,), one.integers) for one in (head, rows)}
    if len(set().union(*ranks.all_gather_object(scales))) > 1:
        head, rows = head.floats(), rows.floats()
    return head, rows
