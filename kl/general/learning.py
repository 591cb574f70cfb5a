"""A machine with centres of its own, whose kernel may be learnt on a sample of the rows before it trains on all."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from kl.eigenpro.parameters import warn_of_other_options
from kl.errors import CheckpointError, InputError
from kl.features.learning import FeatureLearning
from kl.features.learnt import (
    LearntKernel,
    learn_kernel,
    learning_on_sample,
    learnt_from_checkpoint,
    require_features_like,
    resumed_kernel,
)
from kl.features.options import FeatureOptions
from kl.machines.checkpoints import faults_in, is_same, machine_part, require_tensors, require_values
from kl.machines.data_facts import DataFacts, TrainingData
from kl.machines.machine import TrainedExpansion

log = logging.getLogger(__name__)


class LearnsKernel(TrainedExpansion):
    """An expansion whose kernel is K(x M^(1/2), z M^(1/2)) if it has `features`, by which M is learnt at fit start.

    A subclass sets `features`, with the hyper-parameter of that name, and calls `_find_kernel` before it chooses its
    centres.

    Attributes:
        features: how the metric is learnt; None learns none.
        root, round, scores, chosen_by: see `kl.GeneralKernelMachine`.
    """

    _extra_types: ClassVar[dict[str, Any]] = {
        **TrainedExpansion._extra_types,
        "features": dict | None,
        "round": int,
        "scores": list[float],
        "chosen_by": str,
    }
    features: FeatureOptions | None = None
    _of_a_run = (*TrainedExpansion._of_a_run, "_held_out", "_postponed")
    _held_out: tuple[Tensor, Tensor] | None = None  # a validation part, which chooses the round
    _postponed: Callable[[], None] | None = None  # takes the training data
    _known: LearntKernel | None = None  # the kernel of `use_kernel`
    _resumed: tuple[LearntKernel, Tensor] | None = None  # the kernel and the centres of the checkpoint to go on from

    @property
    def learns_kernel(self) -> bool:  # type: ignore[override]
        """Whether the machine has `features`."""
        return self.features is not None

    # Set-up

    def use_kernel(self, learnt: LearntKernel) -> None:
        """Train under a metric that is known, in place of the rounds that `features` ask for.

        Raises:
            InputError: the machine has no `features`.
        """
        if self.features is None:
            raise InputError("features must be given, because they say what metric a checkpoint holds; got None")
        self._known = learnt

    def take(self, data: TrainingData | None, device: torch.device | str = "cpu") -> None:
        """Take the training data, and the rows of a validation part, which choose the round; see `prepare`."""
        self._held_out = DataFacts.of(data).held_out(device) if self.learns_kernel else None
        super().take(data, device)

    def _take_for_training(self, data: TrainingData | None, device: torch.device) -> None:
        # Lightning sets up a machine before it loads the checkpoint of a resumed run, which has the metric. So the
        # metric is learnt in the first hook after both, `configure_optimizers`.
        take = partial(super()._take_for_training, data, device)
        if self.features is None or self._known is not None or self.is_fitted:
            take()
        else:
            self._postponed = take

    def _take_postponed(self) -> None:
        """Take the training data, if that was postponed."""
        take, self._postponed = self._postponed, None
        if take is not None:
            take()

    def _find_kernel(self, x: Tensor, y: Tensor, p: int, device: torch.device | str) -> Tensor | None:
        """Resolve the kernel or learn it; in a resumed run take it, and return the centres of all ranks."""
        if self.features is None:
            self._resolve_kernel(x)
            return None
        learnt, centers = self._resumed or (self._known, None)
        self._resumed = None
        if learnt is None:
            learnt = self.ranks.broadcast_result(lambda: self._learn(x, y, p, device))
        self._take_kernel(learnt, x.device)
        return centers

    def _learn(self, x: Tensor, y: Tensor, p: int, device: torch.device | str) -> LearntKernel:
        """The kernel of the best of the rounds on a sample of the rows."""
        self._require_room(p, x, device)  # training raises the same error, but after the rounds
        learning = self.learning(x, y, device)
        found = learn_kernel(learning)
        log.info("round %d is the best on %d rows, and gives the metric", found.round, len(learning.whole.group))
        return found

    def learning(
        self,
        x: Tensor,  # shape: (n, d)
        y: Tensor,  # shape: (n, c)
        device: torch.device | str = "cpu",
    ) -> FeatureLearning:
        """The rounds on a sample of the rows, of which none has been made.

        Raises:
            InputError: the machine has no `features`, its kernel no gradient, or an option does not fit the data.
        """
        if self.features is None:
            raise InputError("features must be given to learn a metric; got None")
        return learning_on_sample(
            *(self.features, x, y, self._given_kernel),
            memory=self._budget(device),
            seed=self.hparams["seed"],
            device=device,
            held_out=self._held_out,
            say=lambda text: log.info("%s", text),
        )

    def _require_room(self, p: int, x: Tensor, device: torch.device | str) -> None:
        """Raise a `MemoryBudgetError` if the budget cannot hold training with p centres."""

    def _same_centers(self, theirs: Tensor, own: Tensor) -> Tensor:
        """The centres of a checkpoint, which are those of this run up to the rounding of the metric's product."""
        near = 1e-5 * float(own.abs().max())
        if theirs.shape == own.shape and torch.allclose(theirs.to(own), own, rtol=1e-5, atol=near):
            return theirs.to(own)
        raise CheckpointError(
            "the checkpoint belongs to other training data (its centers differ): resume with the same data, number of "
            "rows, label noise and seed as the first run"
        )

    def _take_kernel(self, learnt: LearntKernel, device: torch.device) -> None:
        self.kernel, self.root = learnt.kernel, None if learnt.root is None else learnt.root.to(device, copy=True)
        self.round, self.scores, self.chosen_by = learnt.round, learnt.scores, learnt.chosen_by

    def _start_anew(self) -> None:
        super()._start_anew()
        self.root, self.round, self.scores, self.chosen_by = None, -1, (), ""

    # Checkpoints

    def _take_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self._postponed is not None:
            self._resumed = self._kernel_and_centers(checkpoint)
            self._take_postponed()
        super()._take_checkpoint(checkpoint)

    def _kernel_and_centers(self, checkpoint: dict[str, Any]) -> tuple[LearntKernel, Tensor]:
        """The kernel and the centres of all ranks in the checkpoint from which a run resumes."""
        extra, state = machine_part(checkpoint), checkpoint["state_dict"]
        type(self)._require_kind(extra)
        require_values("kernel_machine", extra, self._extra_types)
        require_tensors(state, self._dimensions)
        require_features_like(extra["features"], self.features)
        kernel = resumed_kernel(extra["kernel"], self._given_kernel)
        return learnt_from_checkpoint(extra, state, kernel, state["centers"].shape[1]), state["centers"]

    def _require_same_start(self, checkpoint: dict[str, Any]) -> None:
        extra, root = machine_part(checkpoint), checkpoint["state_dict"].get("root")
        own, asked = self.root, {} if self.features is None else self.features.to_dict()
        require_features_like(extra["features"], self.features)
        warn_of_other_options(extra["features"] or {}, asked, asked)  # the metric is not learnt again
        if (own is None) != (root is None) or (own is not None and not is_same(own, root)):
            raise CheckpointError("the checkpoint has another metric than this machine: resume with a new machine")
        super()._require_same_start(checkpoint)

    def _extra_state(self) -> dict[str, Any]:
        features = None if self.features is None else self.features.to_dict()
        rounds = {"round": self.round, "scores": list(self.scores), "chosen_by": self.chosen_by}
        return {**super()._extra_state(), "features": features, **rounds}

    def _load_features(self, extra: dict[str, Any], state: dict[str, Tensor], d: int) -> None:
        """Take the metric of a checkpoint and the options by which it was learnt."""
        with faults_in("features"):
            self.features = FeatureOptions.of(extra["features"])
        self.hparams["features"] = extra["features"]
        if self.features is not None:
            self._take_kernel(learnt_from_checkpoint(extra, state, self.kernel, d), torch.device("cpu"))
        elif (extra["round"], list(extra["scores"]), "root" in state) != (-1, [], False):
            raise CheckpointError("its features must be options, because it has rounds of a metric: train again")
