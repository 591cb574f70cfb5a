"""The class that kernels of inner products extend."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from kl.errors import InputError
from kl.kernels.gradients import Gradients, Spanned
from kl.kernels.kernel import Kernel, defined_with
from kl.rows.pair import Pair
from kl.rows.rows import Rows


class GramKernel(Kernel):
    """A kernel that is a function of <x, z>, |x|^2 and |z|^2. A subclass defines `_evaluate`.

    A kernel that learns features also defines `_slopes`, the derivatives in <x, z> and in |x|^2.

    Example:
        >>> import dataclasses, torch, kl
        >>> @dataclasses.dataclass(frozen=True)
        ... class Cosine(kl.GramKernel):  # K(x, z) = <x, z> / (|x||z|)
        ...     def _evaluate(self, gram, x_sq, z_sq):
        ...         return gram.div_((x_sq * z_sq).sqrt_())
        >>> Cosine()(torch.tensor([[2.0, 0.0], [3.0, 4.0]]), torch.tensor([[1.0, 0.0]])).flatten()
        tensor([1.0000, 0.6000])
    """

    def uses_products(self, d: int) -> int:
        """1: the formula takes the inner products once."""
        return 1

    @abstractmethod
    def _evaluate(self, gram: Tensor, x_sq: Tensor, z_sq: Tensor) -> Tensor:
        """Kernel values from inner products.

        Args:
            gram: <x_i, z_j>, shape (m, p); may be overwritten, and should be, because the tile is in cache.
            x_sq: |x_i|^2, shape (m, 1).
            z_sq: |z_j|^2, shape (1, p).

        Returns:
            Tensor of shape (m, p); the caller may overwrite both this tensor and `gram`.
        """

    @property
    def has_gradients(self) -> bool:
        """Whether the class defines `_slopes`."""
        return defined_with(type(self), "_slopes", "_evaluate")

    def _slopes(self, gram: Tensor, x_sq: Tensor, z_sq: Tensor) -> tuple[Tensor, Tensor | None]:
        """The derivatives of `_evaluate` with respect to `gram` and to `x_sq`, each of shape (m, p); None is 0.

        The arguments are those of `_evaluate`, and `gram` may be overwritten.
        """
        raise InputError(self._without_gradients())

    def _without_gradients(self, method: str = "", formula: str = "") -> str:
        method = method or "_slopes(self, gram, x_sq, z_sq)"
        return super()._without_gradients(method, formula or "_evaluate in gram and x_sq")

    def _gradients(self, pair: Pair) -> Gradients:
        a, b = self._slopes(pair.inner(), pair.x.sq_norm[:, None], pair.z.sq_norm[None, :])
        b = a.clone() if b is None else b.mul_(2).add_(a)
        return Spanned(pair.x.data.to(pair.x.dtype), pair.z.data.to(pair.x.dtype), a, b)

    def _values(self, pair: Pair) -> Tensor:
        return self._evaluate(pair.inner(), pair.x.sq_norm[:, None], pair.z.sq_norm[None, :])

    def _diag(self, x: Rows) -> Tensor:
        sq = x.sq_norm[:, None]
        return self._evaluate(sq.clone(), sq, sq).squeeze(1)
