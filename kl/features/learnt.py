"""A metric that is learnt on a sample of the rows, for a machine that then trains on all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kl.errors import CheckpointError
from kl.features.learning import BY, FeatureLearning
from kl.features.options import FeatureOptions
from kl.kernels.configured import comes_from, kernel_from_config, own_classes
from kl.kernels.kernel import Kernel
from kl.machines.checkpoints import faults_in, require_values
from kl.rows.root import require_root
from kl.solve import Problem, Say

CHOOSERS = (*BY[1:], "validation")  # what has chosen a round


@dataclass(frozen=True, eq=False)
class LearntKernel:
    """The kernel K((x - origin) M^(1/2), (z - origin) M^(1/2)) of the best round.

    Args:
        kernel: K, with its bandwidth under the metric.
        root: M^(1/2), float64, on the CPU, shape (d, d), or of a diagonal M shape (d,); None for the plain kernel.
        round: the best round; 0 is the plain kernel.
        scores: the mean squared error of each round on the rows that choose.
        chosen_by: "kfold", "holdout", "loo" or "validation".
    """

    kernel: Kernel
    root: Tensor | None
    round: int
    scores: tuple[float, ...]
    chosen_by: str


def learning_on_sample(
    options: FeatureOptions,
    x: Tensor,  # shape: (n, d)
    y: Tensor,  # shape: (n, c)
    kernel: Kernel,
    *,
    memory: int | str,
    seed: int,
    device: torch.device | str = "cpu",
    held_out: tuple[Tensor, Tensor] | None = None,
    say: Say | None = None,
) -> FeatureLearning:
    """The rounds on at most `options.rows` of the rows, drawn at random; none has been made.

    Args:
        options: how the metric is learnt.
        x: rows, not placed by a metric.
        y: their targets.
        kernel: the kernel; a bandwidth "auto" is chosen anew in every round.
        memory: bytes, "8GB" or "auto".
        seed: of all that is drawn.
        device: where the rounds are made.
        held_out: rows and targets that choose the round, whatever `options.by` says.
        say: is told of the progress; None is silent.

    Raises:
        InputError: the kernel defines no gradient, or an option does not fit the data.
        MemoryBudgetError: the solver does not fit the memory.
    """
    if options.rows is not None and options.rows < len(x):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed + 2))  # others than the centres
        chosen = order[: options.rows].sort().values.to(x.device)
        x, y = x[chosen], y[chosen]
    problem = Problem.of(x.to(device), y.to(device).double())
    return options.learning(problem, kernel, memory=memory, seed=seed, held_out=held_out, say=say)


def learn_kernel(learning: FeatureLearning) -> LearntKernel:
    """Make the rounds; the kernel of the best, which is not solved for on all rows."""
    best = learning.choose()
    root = None if best.metric is None else best.metric.root.cpu()
    return LearntKernel(learning.kernel, root, best.number, tuple(learning.scores), learning.by)


def learnt_from_checkpoint(
    extra: Mapping[str, Any],
    state: Mapping[str, Tensor],
    kernel: Kernel,
    d: int,
) -> LearntKernel:
    """The kernel whose round, scores and root a checkpoint holds, checked.

    Args:
        extra: values `round`, `scores` and `chosen_by`.
        state: tensors, of which `root` may be missing.
        kernel: the checkpoint's kernel.
        d: features.

    Raises:
        CheckpointError: a value is missing, of another type, or does not fit the others.
    """
    require_values("features", extra, {"round": int, "scores": list[float], "chosen_by": str})
    root = state.get("root")
    require_round(extra["round"], extra["scores"], root, d)
    if extra["chosen_by"] not in CHOOSERS:
        raise CheckpointError(f"its chosen_by must be one of {', '.join(CHOOSERS)}; got {extra['chosen_by']!r}")
    return LearntKernel(kernel, root, extra["round"], tuple(extra["scores"]), extra["chosen_by"])


def require_features_like(theirs: Any, own: FeatureOptions | None) -> None:
    """Check that a run with the options `own` learns a metric if the run of a checkpoint, with others, did.

    Raises:
        CheckpointError: one of them learns a metric and the other does not, or `theirs` are no options.
    """
    with faults_in("features"):
        found = FeatureOptions.of(theirs)
    if (found is None) != (own is None):
        learns = ("learns none", "learns a metric")
        raise CheckpointError(
            f"the checkpoint's run {learns[found is not None]}, and this run {learns[own is not None]}: resume with "
            "the same features"
        )


def resumed_kernel(config: Any, given: Kernel) -> Kernel:
    """The kernel of a checkpoint, whose bandwidth is that of its round, for a run with the kernel `given`.

    Raises:
        CheckpointError: `given` does not become that kernel on any data.
    """
    with faults_in("kernel"):
        theirs = kernel_from_config(config, own_classes(given))
    if not comes_from(theirs, given):
        raise CheckpointError(
            f"the checkpoint was trained with kernel {theirs}; got {given}: resume with the same kernel and its "
            "parameters"
        )
    return theirs


def require_round(number: int, scores: Sequence[float], root: Tensor | None, d: int, least: int = 0) -> None:
    """Check the round, the scores and the root of a file against each other; `least` is the smallest round.

    Raises:
        CheckpointError: they do not belong together, or the root is none of d features.
    """
    if not least <= number < len(scores) or (number > 0) != (root is not None):
        raise CheckpointError(
            f"its round must be one of its {len(scores)} rounds, with a root above round 0; got round {number} "
            f"{'without' if root is None else 'with'} a root: train again"
        )
    if root is not None:
        require_root(root, d)
