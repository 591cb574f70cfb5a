"""The recursive feature machine as a LightningModule: an epoch is a round, a fit under a metric that is learnt."""

from __future__ import annotations

import hashlib
import logging
from typing import Any, ClassVar

import torch
from torch import Tensor

from kl.errors import CheckpointError, InputError, MemoryBudgetError
from kl.features.chain import SAMPLE, Fit, placed
from kl.features.learning import FeatureLearning
from kl.features.learnt import require_round, resumed_kernel
from kl.features.options import FeatureOptions
from kl.kernels import Kernel
from kl.machines.data_facts import DataFacts, TrainingData
from kl.machines.interpolating import InterpolatingMachine
from kl.machines.set_weights import SetWeights
from kl.probabilities import fit_temperature
from kl.rows.rows import RowDataset
from kl.solve import Problem, solve_memory
from kl.system.memory import TrainingMemory, format_memory

log = logging.getLogger(__name__)


class RecursiveFeatureMachine(InterpolatingMachine):
    """f(x) = sum_i alpha_i K(x M^(1/2), x_i M^(1/2)) over the training rows, whose metric M is learnt in rounds.

    An epoch is a round: M is taken from the gradients of the last f (`kl.agop`), and f is solved for under it. Round 0
    is the plain kernel. When the rounds have ended, because all are done or two in a row were no better, one more epoch
    solves the best round on all rows, and training stops: a Trainer needs max_epochs of at least rounds + 2.

    The round is chosen by the datamodule's validation part if it has one, else as `by` says.

    Args:
        kernel: a `kl.Kernel`, its name, "package.module:Class", or its `config()`; it must define its gradient. A
            bandwidth "auto" is the median distance under the metric, anew in each round.
        rounds: metrics that are learnt at most.
        metric: "full" or "diagonal".
        bandwidth_factor: a bandwidth "auto" is this times the median distance.
        by: "kfold", "holdout", "loo" or "auto"; see `kl.RFMRegressor`.
        power: exponent of the gradients' outer product.
        centered: whether each output's mean gradient is subtracted first.
        sample: rows, drawn at random, whose gradients are averaged; None takes all.
        ridge: lambda >= 0, added to the diagonal of K, not multiplied by n.
        round_solver: "auto", "direct", "pcg" or "eigenpro"; see `kl.KernelRegressor`.
        round_epochs: of EigenPro, in each round.
        memory: bytes, "8GB", or "auto" (half of what is free).
        precision: must be "high": metrics and rounds are solved on unrounded features.
        seed: of all that is drawn.

    Attributes:
        alpha: weights, shape (n, c), float64; 0 for rows that were held out of the round, or equal others.
        centers: training rows less `origin`, placed by the metric: (x - origin) M^(1/2), shape (n, d).
        root: M^(1/2), shape (d, d), or (d,) where M is diagonal; None in round 0.
        scores: the mean squared error of each round on the rows that choose, of standardised targets where they are.
        round: the round that f is of; -1 before training.

    Raises:
        InputError: an argument is out of its range, or (at fit start) does not fit the data.
        MemoryBudgetError: (at fit start) the budget does not hold a round.

    Source: Radhakrishnan, Beaglehole, Pandit, Belkin 2024, arXiv:2212.13881, Algorithm 1.

    Example:
        >>> import torch, kl
        >>> from pytorch_lightning import Trainer
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> x = torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
        >>> rows = DataLoader(TensorDataset(x, x[:, :1].sin()))  # the other four columns have no effect
        >>> machine = kl.RecursiveFeatureMachine(rounds=2)
        >>> trainer = Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu",
        ...     enable_model_summary=False, max_epochs=4)
        >>> trainer.fit(machine, rows, rows)
        >>> bool(machine.importances[0] > 0.9 * machine.importances.sum())
        True
    """

    method, learns_kernel, steps_read_rows = "recursive feature machine", True, False
    shares_ranks, all_rows_everywhere = True, True
    epochs_compared_by = ("mse",)  # which chooses the round, too

    _same_when_resumed = ("targets", "order")
    _shared_rows = ()
    _extra_types: ClassVar[dict[str, Any]] = {
        **InterpolatingMachine._extra_types,
        "rows": str,
        "round": int,
        "scores": list[float],
    }
    _of_a_run = (*InterpolatingMachine._of_a_run, "_learning", "_fitted", "_held_out")
    _learning: FeatureLearning | None = None
    _fitted: Tensor | None = None
    _held_out: tuple[Tensor, Tensor] | None = None
    _digest = ""

    def __init__(
        self,
        kernel: Kernel | str | dict[str, Any] = "laplacian",
        *,
        rounds: int = 5,
        metric: str = "full",
        bandwidth_factor: float = 1.0,
        by: str = "auto",
        power: float = 1.0,
        centered: bool = False,
        sample: int | None = SAMPLE,
        ridge: float = 0.0,
        round_solver: str = "auto",
        round_epochs: int = 10,
        memory: int | str = "auto",
        precision: str = "high",
        seed: int = 0,
    ) -> None:
        if precision != "high":
            raise InputError(
                f'precision must be "high", because a metric is learnt on unrounded features; got {precision!r}'
            )
        self.features = FeatureOptions(
            rounds=rounds,
            metric=metric,
            bandwidth_factor=bandwidth_factor,
            by=by,
            power=power,
            centered=centered,
            sample=sample,
            ridge=ridge,
            round_solver=round_solver,
            round_epochs=round_epochs,
        )
        options = {name: value for name, value in self.features.to_dict().items() if name != "rows"}  # of all rows
        super().__init__(kernel, memory, precision, seed, options)
        self.scores: list[float] = []

    @property
    def ridge(self) -> float:  # type: ignore[override]
        """What training adds to the diagonal of K(X, X)."""
        return self.features.ridge

    # Set-up

    def take(self, data: TrainingData | None, device: torch.device | str = "cpu") -> None:
        """Take the training data, and the rows of a validation part, which choose the round; see `prepare`."""
        self._held_out = DataFacts.of(data).held_out(device)
        super().take(data, device)

    def prepare(
        self,
        x: Tensor,  # shape: (n, d)
        y: Tensor,  # shape: (n, c)
        device: torch.device | str = "cpu",
    ) -> None:
        """Take the rows and plan the rounds; weights of the same data are kept, weights of other data are dropped.

        Raises:
            InputError: an option or the kernel does not fit the data, or `kl.RowDataset` refuses x and y.
            MemoryBudgetError: the budget does not hold a round.
        """
        RowDataset(x, y)  # checks them
        digest = digest_of(x)
        if self.is_fitted and (digest != self._digest or not torch.equal(y, self.targets.to(y))):
            self._start_anew()
        (n, d), c = x.shape, y.shape[1]
        budget = int(self.ranks.all_reduce_min(self._budget(device)))
        self._require_room(n, d, c, x.element_size(), budget, torch.device(device).type == "cuda")
        if not self.is_fitted:
            self.scores, self.round, self.root = [], -1, None
            self._resolve_kernel(x)
            self._allocate(n, d, c)
            self.origin = self.kernel.origin_of(x)
            self.centers, self.targets, self._digest = x - self.origin, y, digest
        self.to(device)
        self._centers_changed()
        problem = Problem.of(x.to(device), y.double().to(device))
        self._learning = self.features.learning(
            problem,
            self._given_kernel,
            memory=budget - self._beside(n, d, c),
            seed=self.hparams["seed"],
            held_out=self._held_out,
            say=lambda text: log.info("%s", text),
            ranks=self.ranks,
        )
        self.chosen_by = self._learning.by
        self._plan(x, budget)

    def _require_room(self, n: int, d: int, c: int, itemsize: int, budget: int, on_gpu: bool) -> None:
        beside = self._beside(n, d, c)
        if beside >= budget:
            raise MemoryBudgetError(
                f"a round on n={n} rows of d={d} features needs more than {format_memory(beside)}, and the budget is "
                f"{format_memory(budget)}: raise memory=, use fewer rows, or metric='diagonal'"
            )

    def _beside(self, n: int, d: int, c: int) -> int:
        """Bytes besides a solve: rows, placed rows, centres; weights; G, M and their roots."""
        return 4 * n * 3 * d + 8 * n * 4 * c + (0 if self.features.metric == "diagonal" else 8 * 5 * d * d)

    def _plan(self, x: Tensor, budget: int) -> None:
        (n, d), c = x.shape, self.targets.shape[1]
        problem, beside = self.learning.whole, self._beside(n, d, c)
        left = budget - beside
        solver = self.learning.solver
        solve = solve_memory(solver, len(problem.x), d, c, left, self.ranks.size)
        items = {"training data, centres and metric": beside, f"a round by {solver}": solve}
        self.memory = TrainingMemory(budget, items, False, 0)
        log.info("%s; %s", self._given_kernel, self.describe())

    @property
    def learning(self) -> FeatureLearning:
        """The rounds; they exist after `prepare`.

        Raises:
            InputError: `prepare` has not been called.
        """
        if self._learning is None:
            raise InputError("the machine has no run yet: call fit, or prepare(x, y)")
        return self._learning

    @property
    def batch_rows(self) -> int:
        """All rows: a step is a round."""
        return len(self.centers)

    @property
    def parameters_chosen(self) -> dict[str, Any]:
        """The parameters of the run, plain values."""
        options = {name: self.hparams[name] for name in self.features.to_dict() if name != "rows"}
        return {"batch_size": self.batch_rows, "round": self.round, **options}

    def describe(self) -> str:
        """The parameters on one line."""
        by = "" if self._learning is None else f", chosen by {self._learning.by}"
        said = f"at most {self.features.rounds} rounds of a {self.features.metric} metric{by}"
        return said if self.round < 0 else f"round {self.round} of {said}"

    def configure_optimizers(self) -> SetWeights:
        """The optimizer that takes the weights of each round."""
        return SetWeights(self.alpha)

    # Training

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """A round; once the rounds have ended, the best one on all rows, after which training stops."""
        learning = self.learning
        fit = None if learning.is_finished else learning.step()
        if fit is None:
            fit, rows = learning.run(), learning.whole
            self.trainer.should_stop = True
            self._take_temperature(fit)
        else:
            rows = learning.problem
        self._take_fit(fit, rows)
        if learning.scores:
            self.log("features/score", learning.scores[fit.number], on_step=False, on_epoch=True, batch_size=1)

    def _take_fit(self, fit: Fit, rows: Problem) -> None:
        """Become the function of a fit on some of the training rows."""
        solution = fit.solution
        alpha = torch.zeros_like(self.alpha)
        alpha[rows.first] = solution.alpha.to(alpha)
        self.kernel, self.root, self.round = solution.kernel, solution.root, fit.number
        self.scores = list(self.learning.scores)
        self.origin = solution.kernel.origin_of(solution.centers).to(self.centers)
        self.centers = placed(self.learning.whole.x[self.learning.whole.group], solution)
        self._centers_changed()
        self.optimizers().step(alpha=alpha)  # type: ignore[union-attr, call-arg]

    def _take_temperature(self, fit: Fit) -> None:
        """Of a classifier the temperature of probabilities, from leave-one-out outputs under the metric."""
        left = fit.solution.left_out
        if self.is_classifier and left is not None:
            whole = self.learning.whole
            self.data_info["temperature"] = fit_temperature(left[whole.group], self.targets.argmax(dim=1))

    def fitted_values(self) -> Tensor:
        """f(X) on the training rows, shape (n, c), float64."""
        if self._fitted is None or self._fitted.device != self.alpha.device:
            with torch.no_grad():
                self._fitted = self._values_at(self._center_rows).double()
        return self._fitted

    def _centers_changed(self) -> None:
        super()._centers_changed()
        self._fitted = None

    @property
    def sq_norm_per_class(self) -> Tensor:
        """|f_k|_H^2 = sum_i alpha_ik f_k(x_i), shape (c,), float64."""
        return (self.alpha.detach() * self.fitted_values()).sum(dim=0)

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the rounds so far, from which training goes on."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["feature_learning"] = {} if self._learning is None else self._learning.state_dict()

    def _extra_state(self) -> dict[str, Any]:
        return {"rows": self._digest, "round": self.round, "scores": list(self.scores)}

    def _load_extra_state(self, extra: dict[str, Any], state: dict[str, Tensor], resuming: bool) -> None:
        if resuming and extra["rows"] != self._digest:
            raise CheckpointError(
                "the checkpoint belongs to other training data (its rows differ): resume with the same data, "
                "number of rows and seed as the first run"
            )
        super()._load_extra_state(extra, state, resuming)
        require_round(extra["round"], extra["scores"], state.get("root"), state["centers"].shape[1], least=-1)
        self._digest, self.round, self.scores = extra["rows"], extra["round"], list(extra["scores"])
        self.root = None
        if "root" in state:
            self.root = state["root"].to(self.alpha.device, copy=True)

    def _take_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super()._take_checkpoint(checkpoint)
        if self._learning is not None:
            self._learning.load_state_dict(checkpoint.get("feature_learning"))
            self.centers = checkpoint["state_dict"]["centers"].to(self.centers)
            self._centers_changed()

    def _kernel_of(self, config: dict[str, Any], resuming: bool) -> Kernel:
        """The kernel of a checkpoint: the bandwidth of its round may be another than that of round 0."""
        if not resuming:
            return super()._kernel_of(config, resuming)
        return resumed_kernel(config, self._given_kernel)


def digest_of(x: Tensor) -> str:
    """A digest of the rows."""
    return hashlib.blake2b(x.detach().cpu().contiguous().numpy().tobytes(), digest_size=16).hexdigest()
