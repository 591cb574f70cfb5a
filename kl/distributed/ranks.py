"""The processes that share a run: what each owns of n rows, and the few collectives that training needs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from kl.rows.int8 import PER_ROW, Codes
from kl.rows.rows import Rows

T = TypeVar("T")


class Ranks:
    """This process among R; of n rows in a row, rank r owns r, r + R, r + 2R, ... Its k-th row is row r + k R.

    So the first s rows, EigenPro's subsample, are spread as evenly as all of them, whatever n, s and R are. With R = 1
    nothing is sent and no process group is needed. Every collective must be called on all ranks, in the same order.

    Args:
        rank: this process, from 0.
        size: R.
        sharing: how many of them are in the same memory, as those on one machine's CPU are.

    Attributes:
        received: bytes that the collectives have delivered to this rank so far: of a gather all rows, of a sum the sum.
    """

    def __init__(self, rank: int = 0, size: int = 1, sharing: int = 1) -> None:
        self.rank, self.size, self.sharing = rank, size, sharing
        self.received = 0

    # What is whose

    def own(self, n: int) -> slice:
        """This rank's rows of n."""
        return slice(self.rank, n, self.size)

    def count(self, n: int, rank: int | None = None) -> int:
        """How many of n rows a rank owns; this one, if none is named."""
        return len(range(self.rank if rank is None else rank, n, self.size))

    def positions(self, n: int, device: torch.device | str = "cpu") -> Tensor:
        """Which rows of n this rank owns, shape (its count,)."""
        return torch.arange(n, device=device)[self.own(n)]

    # Collectives

    def sum(self, value: Tensor) -> Tensor:
        """The sum over the ranks, the same to the bit on all of them; overwrites `value`."""
        return self.begin_sum(value)()

    def begin_sum(self, value: Tensor) -> Callable[[], Tensor]:
        """Start `sum`; what this returns waits for it. Other work may be done meanwhile."""
        if self.size == 1:
            return lambda: value
        value = value.contiguous()
        work = dist.all_reduce(value, async_op=True)
        self.received += value.numel() * value.element_size()

        def wait() -> Tensor:
            work.wait()
            return value

        return wait

    def largest(self, value: float) -> float:
        """The largest over the ranks; NaN where one is NaN."""
        return max(self.each(value), key=lambda one: (one != one, one))

    def least(self, value: float) -> float:
        """The smallest over the ranks."""
        return -self.largest(-value)

    def total(self, value: int) -> int:
        """The sum over the ranks."""
        return sum(self.each(value))

    def each(self, value: T) -> list[T]:
        """A plain value of every rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def gather(
        self,
        own: Tensor,  # shape: (this rank's count, ...)
        counts: Sequence[int],
    ) -> Tensor:
        """The rows of all ranks one rank after the other, shape (sum of counts, ...)."""
        return self.begin_gather(own, counts)()

    def begin_gather(
        self,
        own: Tensor,  # shape: (this rank's count, ...)
        counts: Sequence[int],
    ) -> Callable[[], Tensor]:
        """Start `gather`; what this returns waits for it. Other work may be done meanwhile."""
        if self.size == 1:
            return lambda: own
        most = max(counts)
        padded = own.new_zeros(most, *own.shape[1:])
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        work = dist.all_gather(parts, padded, async_op=True)
        self.received += sum(part.numel() * part.element_size() for part in parts)

        def wait() -> Tensor:
            work.wait()
            return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

        return wait

    def begin_gather_rows(self, own: Rows, counts: Sequence[int]) -> Callable[[], Rows]:
        """Start to gather feature rows, one rank after the other; 8-bit features are sent as the integers they are.

        What this returns waits for them. Other work may be done meanwhile.
        """
        if self.size == 1:
            return lambda: own
        codes = own.codes
        if codes is None:
            floats = self._begin_packed([own.data, own.sq_norm], counts)

            def wait() -> Rows:
                data, sq_norm = floats()
                return Rows(data, sq_norm, None, own.rounded)

            return wait
        integers = self._begin_packed([own.sq_norm, *(getattr(codes, name) for name in PER_ROW)], counts)

        def wait_and_decode() -> Rows:
            sq_norm, *parts = integers()
            gathered = Codes(**dict(zip(PER_ROW, parts, strict=True)), grid=codes.grid)
            return Rows(gathered.decode(own.data.shape[1], own.data.dtype), sq_norm, gathered, own.rounded)

        return wait_and_decode

    def _begin_packed(self, tensors: Sequence[Tensor], counts: Sequence[int]) -> Callable[[], list[Tensor]]:
        """Start to gather several tensors of the same rows in one message, as bytes."""
        packed = [(t.flatten(1) if t.ndim > 1 else t[:, None]).contiguous().view(torch.uint8) for t in tensors]
        widths, n = [part.shape[1] for part in packed], sum(counts)
        coming = self.begin_gather(torch.cat(packed, dim=1), counts)

        def wait() -> list[Tensor]:
            parts = coming().split(widths, dim=1)
            return [
                part.contiguous().view(t.dtype).reshape(n, *t.shape[1:]) for part, t in zip(parts, tensors, strict=True)
            ]

        return wait

    def whole(
        self,
        own: Tensor,  # shape: (count(n), ...)
        n: int,
    ) -> Tensor:
        """All n rows in their order, on every rank."""
        if self.size == 1:
            return own
        counts = [self.count(n, rank) for rank in range(self.size)]
        parts = self.gather(own, counts).split(counts)
        whole = own.new_empty(n, *own.shape[1:])
        for rank, part in enumerate(parts):
            whole[rank :: self.size] = part
        return whole

    def whole_on_first(
        self,
        own: Tensor,  # shape: (count(n), ...)
        n: int,
    ) -> Tensor:
        """All n rows in their order on the CPU of rank 0; on the others what they own. One part is sent at a time."""
        if self.size == 1:
            return own
        if self.rank > 0:
            dist.send(own.contiguous(), dst=0)
            return own
        whole = torch.empty(n, *own.shape[1:], dtype=own.dtype)
        whole[:: self.size] = own.cpu()
        for rank in range(1, self.size):
            part = own.new_empty(self.count(n, rank), *own.shape[1:])
            dist.recv(part, src=rank)
            self.received += part.numel() * part.element_size()
            whole[rank :: self.size] = part.cpu()
        return whole

    def from_first(self, work: Callable[[], T]) -> T:
        """What `work` returns on rank 0, or the error that it raises there, on every rank; they wait however long."""
        if self.size == 1:
            return work()
        found: list[Any] = [None, None]
        self.each(None)  # who has come this far cannot hang before the end
        group = self._patient_group
        if self.rank == 0:
            try:
                found[0] = work()
            except Exception as error:  # the others must not wait for what will not come
                found[1] = error
        dist.broadcast_object_list(found, src=0, group=group)
        if found[1] is not None:
            raise found[1]
        return found[0]

    @functools.cached_property
    def _patient_group(self) -> Any:
        """All ranks without the usual limit on waiting: an exact solve on one of them may take hours."""
        return dist.new_group(backend="gloo", timeout=timedelta(days=30))

    def same_as_first(self, value: Tensor) -> Tensor:
        """The tensor of rank 0, in place of one of that shape and type on the others."""
        if self.size > 1:
            value = value.contiguous()
            dist.broadcast(value, src=0)
            self.received += value.numel() * value.element_size()
        return value


class FirstOfMany(Ranks):
    """Rank 0 of R, alone: what others would send is taken to be what this rank has. So a plan is made without them.

    Args:
        size: R.
        sharing: as of `Ranks`.
    """

    def __init__(self, size: int, sharing: int = 1) -> None:
        super().__init__(0, size, sharing)

    def begin_sum(self, value: Tensor) -> Callable[[], Tensor]:
        """The value itself, as if the others had 0."""
        self.received += value.numel() * value.element_size()
        return lambda: value

    def each(self, value: T) -> list[T]:
        """The value, R times."""
        return [value] * self.size

    def begin_gather(
        self,
        own: Tensor,  # shape: (this rank's count, ...)
        counts: Sequence[int],
    ) -> Callable[[], Tensor]:
        """This rank's rows in place of all, shape (sum of counts, ...)."""
        self.received += self.size * own.numel() * own.element_size()
        return lambda: own[torch.arange(sum(counts), device=own.device) % max(1, len(own))]

    def whole_on_first(
        self,
        own: Tensor,  # shape: (count(n), ...)
        n: int,
    ) -> Tensor:
        """This rank's rows in place of all."""
        return self.whole(own, n).cpu()

    def same_as_first(self, value: Tensor) -> Tensor:
        """The tensor."""
        return value

    def from_first(self, work: Callable[[], T]) -> T:
        """What `work` returns."""
        return work()


class Share(NamedTuple):
    """This rank's rows of a batch that others load the rest of."""

    own: Tensor
    total: int
    """Rows of the batch."""


class Batch:
    """A batch of m of the n training rows: all of them, one rank's after the other's, and which are this rank's own.

    Attributes:
        positions: the rows, shape (m,), each at most once; in the order given where there is one rank.
        counts: how many of them each rank owns.
        own: which of them are this rank's.
        local: their places among this rank's rows, shape (counts[rank],).
    """

    def __init__(
        self,
        positions: Tensor,  # shape: (m,), the same on all ranks
        ranks: Ranks,
    ) -> None:
        self.ranks = ranks
        if ranks.size == 1:
            self.positions = self.local = positions
            self.counts, self.own = [len(positions)], slice(0, len(positions))
            return
        owner = positions % ranks.size
        self.positions = positions[owner.argsort(stable=True)]
        self.counts = torch.bincount(owner, minlength=ranks.size).tolist()
        start = sum(self.counts[: ranks.rank])
        self.own = slice(start, start + self.counts[ranks.rank])
        self.local = self.positions[self.own] // ranks.size

    def __len__(self) -> int:
        return len(self.positions)

    def gather(
        self,
        own: Tensor,  # shape: (counts[rank], ...)
    ) -> Tensor:
        """What every rank has for its own rows, shape (m, ...)."""
        return self.ranks.gather(own, self.counts)

    def begin_rows(self, rows: Rows) -> Callable[[], Rows]:
        """Start to gather the features of the batch, from every rank's `rows`; what this returns waits for them."""
        return self.ranks.begin_gather_rows(rows[self.local], self.counts)


def encode_shared(
    first: Tensor,  # the first rows of all ranks, shape: (k, d)
    own: Tensor,  # the rows of this rank, shape: (n_r, d)
    precision: str,
    ranks: Ranks,
) -> tuple[Rows, Rows]:
    """Both as `Rows`, which meet each other and the rows of the other ranks."""
    head = Rows.of(first, precision=precision)
    rows = Rows.of(own, like=head)
    # 8-bit features of all ranks must be on one scale, which the first rows may not show.
    scales = {one.codes and (one.codes.grid,) for one in (head, rows)}
    if len(set().union(*ranks.each(scales))) > 1:
        head, rows = head.without_codes(), rows.without_codes()
    return head, rows
