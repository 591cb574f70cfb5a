"""The metric M of learnt features: K_M(x, z) = K(x M^(1/2), z M^(1/2)), so any kernel works on transformed rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kl.checks import check_count, check_one_of, check_positive
from kl.errors import InputError
from kl.features.agop import Agop
from kl.features.structure import KINDS, Structure
from kl.rows.rows import check_finite_matrix

ROUNDING = (
    1e-8  # how far a root in a file may be from symmetric and positive semi-definite, relative to its largest entry
)


@dataclass(frozen=True, eq=False)
class Metric:
    """A positive semi-definite matrix M of features, which holds its root R = M^(1/2).

    Make one with `Metric.of`, `Metric.identity` or `Metric.from_state`.

    Args:
        structure: "full", "diagonal" or "blocks".
        roots: the parts of R, float64, of the shapes of `structure.shapes`.

    Example:
        >>> import torch, kl
        >>> x = kl.Rows.of(torch.tensor([[0.0, 0.5], [2.0, 0.5]]))
        >>> found = kl.agop(kl.Polynomial(1), x, x, torch.ones(2, 1), metric="diagonal")  # the gradient is z_1 + z_2
        >>> metric = kl.Metric.of(found)
        >>> metric.importances, metric.transform(torch.tensor([[2.0, 2.0]]))
        (tensor([1.0000, 0.2500], dtype=torch.float64), tensor([[2., 1.]]))
    """

    structure: Structure
    roots: tuple[Tensor, ...]

    @classmethod
    def of(cls, found: Agop, power: float = 1.0, scale: str = "max") -> Metric:
        """M = G^power, divided by its largest entry.

        A column that the function does not follow, such as a constant one, gets 0. Eigenvalues of G below 0, from
        rounding or from a centred sketch, are taken as 0.

        Args:
            found: G.
            power: exponent of G, above 0; 1/2 makes weak directions count more.
            scale: "max": the largest entry of M is 1; "trace": its trace is d, that of the identity.

        Raises:
            InputError: all gradients are 0, one is not finite, or an option is out of its range.

        Source: Radhakrishnan et al. 2024, arXiv:2212.13881, Algorithm 1; the division: the code of
        xRFM, arXiv:2508.10053.
        """
        power = check_positive("power", power)
        check_one_of("scale", scale, ("max", "trace"))
        parts = found.structure.check("the gradients' outer product", list(found.parts))
        if found.is_zero:
            raise InputError(
                f"the gradients are 0 at all {found.rows} rows, so there are no features to learn: the fitted function "
                "is constant there; use the plain kernel, a smaller ridge or more rows"
            )
        largest = max(float(part.abs().max()) for part in parts)
        roots = tuple(_root(part / largest, power) for part in parts)  # so that powers neither overflow nor underflow
        unscaled = cls(found.structure, roots)
        diagonal = unscaled.importances  # the largest entry of a positive semi-definite matrix is on its diagonal
        size = float(diagonal.max() if scale == "max" else diagonal.sum() / found.structure.d)
        if size == 0:
            raise InputError("the gradients' outer product must have an eigenvalue above 0; take more rows or signs")
        return cls(found.structure, tuple(root / size**0.5 for root in roots))

    @classmethod
    def identity(cls, d: int, kind: str = "full") -> Metric:
        """The metric of the plain kernel; `kind` is "full", "diagonal" or a list of groups of columns."""
        structure = Structure.of(kind, check_count("d", d))
        ones = (torch.ones(shape[0], dtype=torch.float64) for shape in structure.shapes)
        return cls(structure, tuple(one if structure.kind == "diagonal" else one.diag() for one in ones))

    @classmethod
    def from_state(cls, state: Any) -> Metric:
        """The metric of `state_dict`, which may come from a file and is checked.

        Raises:
            InputError: it is no such state, or its roots are not finite, symmetric and positive semi-definite.
        """
        if not isinstance(state, Mapping) or not {"kind", "d", "groups", "roots"} <= set(state):
            raise InputError("a metric must have kind, d, groups and roots; the file is damaged or another's")
        kind = check_one_of("a metric's kind", state["kind"], KINDS)
        structure = Structure.of(state["groups"] if kind == "blocks" else kind, check_count("d", state["d"]))
        roots = structure.check("a metric's roots", state["roots"])
        for root in roots:
            allowed = ROUNDING * float(root.abs().max())
            symmetric = root.ndim == 1 or bool((root - root.T).abs().max() <= allowed)
            lowest = float(root.min() if root.ndim == 1 else torch.linalg.eigvalsh(root)[0]) if symmetric else 0.0
            if not symmetric or lowest < -allowed:
                raise InputError(
                    "a metric's roots must be symmetric with no eigenvalue below 0; got "
                    + (f"the eigenvalue {lowest:.3g}" if symmetric else "a root that is not symmetric")
                )
        return cls(structure, roots)

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors, from which `from_state` makes a metric that transforms rows to the same bits."""
        groups = [list(group) for group in self.structure.groups]
        return {"kind": self.structure.kind, "d": self.structure.d, "groups": groups, "roots": list(self.roots)}

    def transform(
        self,
        x: Tensor,  # shape: (n, d)
    ) -> Tensor:
        """x M^(1/2), shape (n, d), in the dtype and on the device of x.

        Raises:
            InputError: x is no finite float matrix of d columns.
        """
        if check_finite_matrix("x", x).shape[1] != self.structure.d:
            raise InputError(f"x must have the metric's {self.structure.d} columns; got {x.shape[1]}")
        roots = [root.to(x) for root in self.roots]
        if self.structure.kind == "diagonal":
            return x * roots[0]
        if self.structure.kind == "full":
            return x @ roots[0]
        out = torch.empty_like(x)
        for group, root in zip(map(list, self.structure.groups), roots, strict=True):
            out[:, group] = x[:, group] @ root
        return out

    @property
    def root(self) -> Tensor:
        """R = M^(1/2), float64, shape (d, d), or its diagonal, shape (d,): see `kl.rows.root`."""
        return self.roots[0] if self.structure.kind == "diagonal" else self.structure.dense(self.roots)

    def pull_back(self, found: Agop) -> Agop:
        """R G R: the outer product in the features x, from that in the features x R on which a function was fitted.

        With f(x) = g(x R) the chain rule is grad f = R grad g.

        Raises:
            InputError: G keeps other entries than this metric, so that R G R is not known from them.
        """
        if found.structure != self.structure:
            raise InputError(
                f"the outer product must keep the metric's entries, {self.structure.kind}; got {found.structure.kind}"
            )
        both = zip(
            (root.to(part) for root, part in zip(self.roots, found.parts, strict=True)), found.parts, strict=True
        )
        parts = tuple(root.square() * part if part.ndim == 1 else root @ part @ root for root, part in both)
        return Agop(found.structure, parts, found.rows)

    @property
    def importances(self) -> Tensor:
        """The diagonal of M, float64, shape (d,): how much each column counts."""
        return self.structure.diagonal(self._parts())

    def dense(self) -> Tensor:
        """M, float64, shape (d, d)."""
        return self.structure.dense(self._parts())

    def _parts(self) -> tuple[Tensor, ...]:
        return tuple(root.square() if root.ndim == 1 else root @ root for root in self.roots)


def _root(part: Tensor, power: float) -> Tensor:
    """part^(power / 2), with eigenvalues below 0, and those that rounding alone may have made, taken as 0."""
    if part.ndim == 1:
        return part.clamp(min=0).pow(power / 2)
    values, vectors = torch.linalg.eigh((part + part.T) / 2)
    least = len(part) * torch.finfo(part.dtype).eps * values[-1].clamp(min=0)
    kept = torch.where(values > least, values, 0.0).pow(power / 2)
    root = (vectors * kept) @ vectors.T
    unused = part.diagonal() == 0  # such columns are exactly 0, but not their eigenvectors
    root[unused], root[:, unused] = 0, 0
    return (root + root.T) / 2
