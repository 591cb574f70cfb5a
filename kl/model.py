"""A fitted function and nothing else: it predicts from the smallest file, whichever solver found its weights."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from kl.errors import CheckpointError, InputError
from kl.exact.interpolate import Interpolant
from kl.kernels import Kernel
from kl.kernels.registry import GivenKernel, given_kernels, stored_kernel
from kl.machines.checkpoints import faults_in, machine_part, require_values
from kl.machines.data_facts import DataFacts
from kl.machines.described import require_description
from kl.machines.function import decode_centers, require_function
from kl.machines.state import StatefulExpansion
from kl.system.saved import save_values

LEVELS = 256  # values of a byte


class KernelModel(StatefulExpansion):
    """f(x) = sum_j alpha_j K(x, z_j) whose weights have been found: the model predicts and does not train.

    Make one from a fitted machine (`from_machine`) or from an exact solution (`from_interpolant`). `save` writes the
    weights and centres alone, which `kl.load_machine` and `kl predict` read; centres that are 8-bit pixels take one
    byte per feature.

    Args:
        kernel: the kernel; its bandwidth must be resolved.
        precision: of features that are not 8-bit: "high" computes kernel products in float32, "medium" rounds the
            features to bfloat16, which is faster (see `Rows.of`).

    Attributes:
        alpha: weights, shape (p, c), float64.
        centers: z_1..z_p less `origin`, shape (p, d).
        origin: what is subtracted from every x, shape (d,).
        root: M^(1/2) of a learnt metric, or None; see `kl.machines.expansion.KernelExpansion`.

    Raises:
        InputError: precision is neither "high" nor "medium".

    Example:
        >>> import torch, kl
        >>> x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [2.0]])
        >>> model = kl.KernelModel.from_interpolant(kl.interpolate(kl.Laplacian(1.0), x, y))
        >>> model(x).round(decimals=6).flatten().tolist()
        [1.0, 2.0]
    """

    _extra_types: ClassVar[dict[str, Any]] = {**StatefulExpansion._extra_types, "precision": str, "levels": float}

    def __init__(self, kernel: Kernel, precision: str = "high") -> None:
        super().__init__(kernel, precision)

    @classmethod
    def from_machine(cls, machine: StatefulExpansion) -> Self:
        """The function of a fitted machine; the tensors are shared with the machine.

        Raises:
            InputError: the machine has not been fitted, or several ranks share its centres.
        """
        machine._require_fitted()
        if machine.ranks.size > 1:
            raise InputError(
                f"the machine's centres are shared among {machine.ranks.size} ranks: save a checkpoint, and load that"
            )
        machine._settle()
        model = cls(machine.kernel, machine.precision)
        return model.become(machine.alpha.detach(), machine.centers, machine.origin, machine.data_info, machine.root)

    @classmethod
    def from_interpolant(cls, solution: Interpolant, data_info: dict[str, Any] | None = None) -> Self:
        """The function of an exact, ridge or least-squares solution.

        Args:
            solution: what `kl.interpolate` or `kl.least_squares` returned.
            data_info: the description of the data set (`kl.machines.described.describe_data`); None describes a
                regression on the features as they are.
        """
        centers = solution.centers
        origin = solution.kernel.origin_of(centers)
        if data_info is not None:
            require_description(data_info)
        else:
            data_info = DataFacts(name="arrays", task="regression").description(centers, solution.alpha)
        moved = centers - origin if origin.any() else centers
        return cls(solution.kernel).become(solution.alpha, moved, origin, data_info)

    def _load_extra_state(self, extra: dict[str, Any], state: dict[str, Tensor], resuming: bool) -> None:
        self.alpha = torch.nn.Parameter(torch.zeros(state["alpha"].shape, dtype=torch.float64), requires_grad=False)
        for name in self._kept_in_checkpoints:
            self.register_buffer(name, torch.zeros(state[name].shape))

    def _extra_state(self) -> dict[str, Any]:
        return {"precision": self.precision, "levels": 0.0}

    # Files

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write weights, centres, kernel and the data's description to a file, completely or not at all.

        Raises:
            InputError: the model holds no weights.
            OSError: the file cannot be written.
        """
        self._require_fitted()
        extra, centers = self.describe_state(), self.centers.cpu()
        levels = levels_of(centers)
        if levels:
            extra["levels"], centers = levels, (centers * levels).round_().to(torch.uint8)
        state = {"alpha": self.alpha.detach().cpu(), "centers": centers, "origin": self.origin.cpu()}
        if self.root is not None:
            state["root"] = self.root.cpu()
        save_values(
            path, {"state_dict": {k: v.contiguous().clone() for k, v in state.items()}, "kernel_machine": extra}
        )

    @classmethod
    def restored(
        cls,
        checkpoint: dict[str, Any],
        *,
        kernel: GivenKernel | Sequence[GivenKernel] | None = None,
        **options: Any,
    ) -> Self:
        """The model that the contents of a file describe.

        Args:
            checkpoint: what `kl.machines.checkpoints.read_checkpoint` returned.
            kernel: the kernel, its class, or "package.module:Class", if the file's kernel is not one of kl's; see
                `kl.load_machine`.
            options: none are accepted.

        Raises:
            CheckpointError: the contents describe no `KernelModel`.
        """
        if options:
            raise InputError(f"a KernelModel takes no options but kernel; got {', '.join(options)}")
        extra, state = machine_part(checkpoint), dict(checkpoint["state_dict"])
        if extra["kind"] != cls.__name__:
            raise CheckpointError(f"the file holds a {extra['kind']}, not a {cls.__name__}: use kl.load_machine")
        require_values("kernel_machine", extra, cls._extra_types)
        decode_centers(state, extra["levels"])
        require_function(state, extra["data_info"])
        given = given_kernels(kernel)
        with faults_in("kernel or precision"):
            model = cls(stored_kernel(extra["kernel"], given), extra["precision"])
        model.kernel = model._kernel_of(extra["kernel"], resuming=False)  # a kernel that was given must be the file's
        return model.become(state["alpha"], state["centers"], state["origin"], extra["data_info"], state.get("root"))


def levels_of(
    centers: Tensor,  # shape: (p, d)
) -> float:
    """l with centers = k / l to the bit for integers k in 0..255 (255 for pixels in [0, 1]); 0 if there is none."""
    if centers.dtype != torch.float32 or not centers.numel() or float(centers.min()) < 0:
        return 0.0
    positive = centers[centers > 0]
    least = float(positive.min()) if positive.numel() else 1.0
    for levels in dict.fromkeys((1.0, LEVELS - 1.0, float(round(1 / least)) if least <= 1 else 1.0)):
        k = (centers * levels).round_()
        if float(k.max()) < LEVELS and torch.equal(k / levels, centers):
            return levels
    return 0.0
