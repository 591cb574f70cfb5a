"""A general kernel model as a LightningModule: p centres, any data, trained by EigenPro 3 and 4."""

from __future__ import annotations

import logging
import math
from dataclasses import asdict, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from kl.checks import check_count, check_one_of, plain
from kl.distributed.ranks import Share
from kl.eigenpro.memory import EVALUATED_ROWS
from kl.eigenpro.options import EigenProOptions, at_most, parse_size
from kl.eigenpro.parameters import EigenProPlan, warn_of_other_options
from kl.eigenpro.plan import head_rows
from kl.eigenpro.preconditioner import Preconditioner
from kl.errors import CheckpointError, InputError
from kl.features.options import FeatureOptions
from kl.general.centers import CENTERS_FROM, choose_centers, random_order
from kl.general.learning import LearnsKernel
from kl.general.optimizer import ProjectedEigenPro
from kl.general.plan import PROJECTIONS, choose_period, general_memory, plan_general, sample_rows
from kl.general.projection import EigenProProjection, make_projection
from kl.general.run import ProjectedRun
from kl.kernels import Kernel
from kl.machines.checkpoints import machine_part
from kl.machines.machine import prepared
from kl.metrics import EvaluationMetrics
from kl.products.blocks import kernel_matmul
from kl.rows.dense import require_dense
from kl.rows.root import under_root
from kl.rows.rows import RowDataset, Rows, check_finite_matrix, data_key
from kl.rows.workspace import spans

log = logging.getLogger(__name__)


class GeneralKernelMachine(LearnsKernel):
    """f(x) = sum_j alpha_j K(x, z_j) with p centres, fitted to any number n of rows by EigenPro 3 or 4.

    Training minimises sum_i |f(x_i) - y_i|^2 over the span of the K(., z_j). The memory depends on p and the batch
    size, not on n. If the targets cannot all be met, the weights come near the least-squares solution and fluctuate
    about it with the batches; therefore the step size falls to 0 towards the end of the run.

    Several ranks share the centres; each rank owns some of them (see `kl.distributed.ranks`).

    With `features` the kernel is K(x M^(1/2), z M^(1/2)). Its metric M is learnt at fit start, by the rounds of a
    recursive feature machine on a random sample of the rows, of which the best is kept: the best on the datamodule's
    validation part if it has one, else as `by` says. Training then goes on as with any other kernel.

    Args:
        kernel: a `kl.Kernel`, its name, "package.module:Class", or its `config()`. With `features` it must define its
            gradient, and a bandwidth "auto" is the median distance under the metric.
        centers: p, or the centres themselves, shape (p, d).
        centers_from: if p is given, how the centres are chosen: "random" rows, "kmeans" or "rpcholesky" (see
            `kl.general.centers`). If training rows are augmented, so are the centres, and p may exceed the number of
            rows.
        projection_period: T, steps between two projections: 1 is EigenPro 3, more is EigenPro 4; "auto" projects after
            about p rows.
        projection: "factor" keeps a factor of K(Z, Z), p^2 / 2 values; "eigenpro" is an epoch of EigenPro 2 on the
            centres; "auto" is the factor if it fits the budget.
        batch_size: m, in rows, or "auto": the critical batch size m*, half of m* on a CPU, as far as memory allows. At
            most the rows of an epoch, if their number is known.
        step_size: eta, or "auto".
        decay: the last share of the run, in which the step size falls to 0 as the square of the remaining time; 0 keeps
            it constant. "auto" is 0.5 if p < n or the rows are augmented or streamed, and 0 otherwise, because the
            weights do not fluctuate if the targets can be met.
        top_q: q, the eigendirections to damp, or "auto"; 0 is plain projected SGD.
        subsample: s, the number of centres that the preconditioner is built on, or "auto".
        memory: bytes, "8GB", or "auto" (half of what is free).
        precision: of kernel products of features that are not 8-bit: "high" is float32, "medium" rounds the features to
            bfloat16, which is faster (see `Rows.of`).
        running_metrics: give training metrics as means over the batches. This saves a pass over all training rows after
            each epoch, a quarter to two fifths of the time of its steps.
        features: how a metric is learnt, a `kl.FeatureOptions` or a dict of its arguments; None learns none.
        seed: of the centres, of the rows that the spectrum is estimated on, of `bandwidth="auto"`, and of the rounds.

    Attributes:
        plan: the `EigenProPlan` of the run, or of the checkpoint.
        run: the `ProjectedRun` that takes the steps, known while fitting.
        eigenvalues: those that the preconditioner was built from, largest first, shape (s,), known while fitting.
        alpha: weights, shape (p_r, c), float64.
        centers: the centres of this rank, less `origin` and placed by the metric, (z - origin) M^(1/2), shape (p_r, d);
            z_1..z_p are in random order.
        origin: shape (d,); not 0 only if the data lie far from 0 and the kernel is shift-invariant.
        root: M^(1/2), float64, shape (d, d), or (d,) where M is diagonal; None without a metric and in round 0.
        round: the round of the metric, 0 if the plain kernel is the best; -1 without `features`.
        scores: the mean squared error of each round on the rows that choose.
        train_metrics: train/mse and, for classifiers, train/error, from a pass over all training rows, not augmented,
            after each epoch. For a stream and with `running_metrics`, train/mse_running and train/error_running: means
            over the epoch's batches, each before its step.

    Raises:
        InputError: an argument is out of its range, or (at fit start) does not fit the data.
        MemoryBudgetError: (at fit start) the budget does not hold the run.
        DivergenceError: (in training) the loss still grows after the step size was halved 12 times.

    Source: Abedsoltan, Belkin, Pandit 2023, arXiv:2302.02605 (EigenPro 3, T = 1); Abedsoltan, Ma, Pandit, Belkin 2024,
    arXiv:2411.16658 (EigenPro 4, T > 1); the steps stand in `kl.general.optimizer.ProjectedEigenPro`. Metric:
    Radhakrishnan, Beaglehole, Pandit, Belkin 2024, arXiv:2212.13881, Algorithm 1.

    Example:
        >>> import torch, kl
        >>> from pytorch_lightning import Trainer
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> x = torch.linspace(0, 1, 20)[:, None]
        >>> rows = DataLoader(TensorDataset(x, (6 * x).sin()))
        >>> machine = kl.GeneralKernelMachine(kl.Laplacian(1.0), centers=x[::2])
        >>> trainer = Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu",
        ...     enable_model_summary=False, max_epochs=30)
        >>> trainer.fit(machine, rows, rows)
        >>> tuple(machine.alpha.shape), round(machine.train_metrics["train/mse"], 1)
        ((10, 1), 0.0)
    """

    own_centers, shares_ranks, norm_is_free = True, True, False
    plan: EigenProPlan
    eigenvalues: Tensor
    vectors: Tensor  # E of the preconditioner, shape: (s, q)
    weights: Tensor  # D, shape: (q,)
    sq_norm: Tensor  # of the weights, unless `_norm_is_old`, shape: (c,)
    _kept_in_checkpoints = ("centers", "origin", "vectors", "weights")
    _shared_rows = ("alpha", "centers")
    _dimensions: ClassVar[dict[str, int]] = {"centers": 2, "vectors": 2, "weights": 1, "sq_norm": 1}
    _extra_types: ClassVar[dict[str, Any]] = {
        **LearnsKernel._extra_types,
        "plan": dict,
        "period": int,
        "projection": str,
        "step_size": float,
        "data_key": str,
        "centers_given": bool,
    }
    _of_a_run = (*LearnsKernel._of_a_run, "_train_rows", "_all_centers")
    _run: ProjectedRun | None = None
    _train_rows: Rows | None = None  # all training rows, if they are encoded only once
    _all_centers: Tensor | None = None  # z_1..z_p of all ranks, from `_choose` to `_head`

    def __init__(
        self,
        kernel: Kernel | str | dict[str, Any] = "laplacian",
        centers: int | Tensor = 2000,
        *,
        centers_from: str = "random",
        projection_period: int | str = "auto",
        projection: str = "auto",
        batch_size: int | str = "auto",
        step_size: float | str = "auto",
        decay: float | str = "auto",
        top_q: int | str = "auto",
        subsample: int | str = "auto",
        memory: int | str = "auto",
        precision: str = "high",
        running_metrics: bool = False,
        features: FeatureOptions | dict[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        require_dense("centers", centers)
        self._given: Tensor | None = None
        self._centers_given = isinstance(centers, Tensor)
        if isinstance(centers, Tensor):
            self._given, centers = check_finite_matrix("centers", centers), len(centers)
        self._options = EigenProOptions.parse(batch_size, step_size, top_q, subsample)
        self._period_asked = parse_size("projection_period", projection_period, 1)
        given, decay = plain(centers), plain(decay)
        if hasattr(given, "__len__") and not isinstance(given, str):
            raise InputError(
                "centers must be a whole number, or the centres as a torch tensor of shape (p, d); got "
                f"{type(centers).__name__}: use torch.as_tensor"
            )
        centers = check_count("centers", given)
        if decay != "auto" and (not isinstance(decay, int | float) or isinstance(decay, bool) or not 0 <= decay <= 1):
            raise InputError(f"decay must be auto or a share of the run from 0 to 1; got {decay!r}")
        check_one_of("centers_from", centers_from, CENTERS_FROM)
        check_one_of("projection", projection, PROJECTIONS)
        options = {
            "centers": centers,
            "centers_from": centers_from,
            "projection_period": projection_period,
            "projection": projection,
            "batch_size": batch_size,
            "step_size": step_size,
            "decay": decay,
            "top_q": top_q,
            "subsample": subsample,
            "running_metrics": bool(running_metrics),
        }
        found = FeatureOptions.of(features)
        options["features"] = None if found is None else found.to_dict()
        super().__init__(kernel, memory, precision, seed, {name: plain(value) for name, value in options.items()})
        self.features = found
        self.step_size = math.nan  # eta before its decay, after any cuts; known while fitting
        self.period = 0  # T, known while fitting
        self._num_centers = 0  # of all ranks, known while fitting
        self._data_key = ""  # of the training rows, or of the sample of a stream
        self._running: EvaluationMetrics | None = None  # means over the epoch's batches, if `has_running_metrics`

    @property
    def method(self) -> str:  # type: ignore[override]
        """The name of the method in reports."""
        return "EigenPro 3" if self.period == 1 else "EigenPro 4"

    # Set-up

    def prepare(
        self,
        x: Tensor,  # shape: (n, d)
        y: Tensor,  # shape: (n, c)
        device: torch.device | str = "cpu",
    ) -> None:
        """Learn the metric, if there is one to learn, choose the centres, and plan the run.

        x and y are the training rows, or a sample of them.

        Existing weights are kept if they belong to the same rows, or to a stream with the same numbers of features and
        outputs; otherwise they are discarded.

        Raises:
            InputError: an option does not fit the data, or `kl.RowDataset` refuses x and y.
            MemoryBudgetError: the budget does not hold the run.
        """
        RowDataset(x, y)  # checks them
        key = data_key(x, y)
        if self.is_fitted:
            same_shape = (x.shape[1], y.shape[1]) == (self.centers.shape[1], self.alpha.shape[1])
            if not (same_shape and (self._streamed or key == self._data_key)):
                self._start_anew()
        if not self.is_fitted:
            self._choose(x, y, device)
        self._data_key = key
        self.to(device)
        self._centers_changed()
        self._plan(x, self._budget(device))

    def _start_anew(self) -> None:
        if self._centers_given and self.root is None:
            self._given = self.ranks.all_gather_in_order(self.centers + self.origin, self._num_centers)
        elif self._centers_given and self._given is None:
            raise InputError(
                "centers were given, and this machine has kept them under its metric alone, from which they cannot be "
                "recovered for other training data: make a new machine with these centers"
            )
        super()._start_anew()

    def _choose(self, x: Tensor, y: Tensor, device: torch.device | str) -> None:
        """Resolve the kernel or learn it, choose the centres, and allocate the parameters."""
        p = self._count(x)
        resumed = self._find_kernel(x, y, p, device)
        origin, root, how = self.kernel.origin_of(x), self.root, self.hparams["centers_from"]

        def place(some: Tensor) -> Tensor:
            return under_root(some.to(x) - origin, root)

        def choose() -> Tensor:
            if self._augmented and how == "random":
                return place(self._random_augmented(x, p))
            rows = self._candidates(x)
            if root is None or how == "random":  # few rows to place
                return place(choose_centers(self.kernel, rows, p, how, self.hparams["seed"]))
            placed = torch.cat([place(rows[some]) for some in spans(len(rows), EVALUATED_ROWS)])
            return choose_centers(self.kernel, placed, p, how, self.hparams["seed"])

        centers = self.ranks.broadcast_result(choose) if self._given is None else place(self._given)
        # The order is random, because the first s centres are the subsample.
        order = torch.randperm(p, generator=torch.Generator().manual_seed(self.hparams["seed"]))
        centers = centers[order.to(centers.device)]
        self._allocate(self.ranks.count(p), x.shape[1], y.shape[1], 0, 0)
        self.origin, self._num_centers = origin, p
        self.centers = centers if resumed is None else self._same_centers(resumed, centers)
        if self.ranks.size > 1:
            self._all_centers = self.centers
            self.centers = self.centers[self.ranks.local_rows(p)].clone()

    def _count(self, x: Tensor) -> int:
        """p, the number of centres."""
        if self._given is not None:
            rows = p = len(self._given)
            if self._given.shape[1] != x.shape[1]:
                raise InputError(
                    f"centers must have as many columns as the data has features, {x.shape[1]}; got "
                    f"{self._given.shape[1]}"
                )
        else:
            rows = len(x) * self._draws(x)
            p = at_most("centers", self.hparams["centers"], rows, "sampled row" if self._streamed else "training row")
        if p < self.ranks.size:
            raise InputError(f"{p} centers are fewer than the {self.ranks.size} ranks: use fewer devices")
        return p

    def _draws(self, x: Tensor) -> int:
        """How many times all training rows are augmented, so that there are enough to choose centres among."""
        return math.ceil(self.hparams["centers"] / len(x)) if self._augmented else 1

    def _candidates(self, x: Tensor) -> Tensor:
        """The rows among which centres are chosen, shape (t, d)."""
        if self._as_trained is None:
            return x
        return torch.cat([self._as_trained(None, draw, None) for draw in range(self._draws(x))])

    def _random_augmented(self, x: Tensor, p: int) -> Tensor:
        """The centres that "random" chooses among the candidates, shape (p, d), of which only they are computed."""
        assert self._as_trained is not None  # they are augmented
        n = len(x)
        chosen = random_order(n * self._draws(x), self.hparams["seed"])[:p]
        found = x.new_empty(p, x.shape[1])
        for draw in range(self._draws(x)):
            of_draw = chosen // n == draw
            found[of_draw.to(x.device)] = self._as_trained(None, draw, chosen[of_draw] % n).to(found)
        return found

    def _require_room(self, p: int, x: Tensor, device: torch.device | str) -> None:
        c, s, on_gpu = 1, self._options.subsample_of(p), torch.device(device).type == "cuda"
        projection, ranks = self.hparams["projection"], self.ranks.size
        general_memory(p, x.shape[1], c, s, self._budget(device), x.element_size(), projection, on_gpu, ranks)

    def _allocate(self, p: int, d: int, c: int, s: int, q: int) -> None:
        self.alpha = torch.nn.Parameter(torch.zeros(p, c, dtype=torch.float64), requires_grad=True)
        self.register_buffer("centers", torch.zeros(p, d))
        self.register_buffer("origin", torch.zeros(d))
        self.register_buffer("vectors", torch.zeros(s, q))
        self.register_buffer("weights", torch.zeros(q))
        self.register_buffer("sq_norm", torch.zeros(c, dtype=torch.float64))

    def _plan(self, x: Tensor, budget: int) -> None:
        options, ranks, d, c = self.hparams, self.ranks, self.centers.shape[1], self.alpha.shape[1]
        p = self._num_centers
        at_most("subsample", self._options.subsample, p, "centre")  # logs a message if it is clipped
        s = self._options.subsample_of(p)
        head = self._head(head_rows(p, s))
        itemsize, on_gpu, budget = head.sq_norm.element_size(), head.data.is_cuda, int(ranks.all_reduce_min(budget))
        room = general_memory(p, d, c, s, budget, itemsize, options["projection"], on_gpu, ranks.size)
        some = sample_rows(len(x), options["seed"])
        sample = x[some.to(x.device)] if self._as_trained is None else self._as_trained(some, 0, None)
        rows = self.placed(sample)
        epoch_rows = self._epoch_rows or (None if self._streamed else len(x))
        memory_batch, asked = room.batch_rows, self._options
        if epoch_rows is not None:  # no batch has more rows, and the step size is chosen for the rows of a batch
            m = at_most("batch_size", asked.batch_size, epoch_rows, "training row")
            memory_batch, asked = min(memory_batch, epoch_rows), replace(asked, batch_size=m)
        self.plan, precond, self.eigenvalues = plan_general(
            self.kernel,
            head[:s],
            Rows.of(rows, like=head),
            memory_batch,
            asked,
            p,
            c,
            ranks,
        )
        m, self.step_size = self.plan.batch_size, self.plan.step_size
        others = self._streamed or self._augmented  # epochs may have different rows
        self.decay = (0.5 if p < len(x) or others else 0.0) if options["decay"] == "auto" else options["decay"]
        most = room.longest_period(m, ranks.size)
        self.period = choose_period(self._period_asked, p, m, most, epoch_rows or len(x))
        temporary = (self.period - 1) * -(-m // ranks.size)
        self.memory = room.with_run(m, temporary)
        self.vectors, self.weights = precond.vectors, precond.weights
        projection = make_projection(self.kernel, self._center_rows, head, p, c, s, budget, room.keep_factor, ranks)
        norm_is_old = self._norm_is_old
        self._run = ProjectedRun(
            self.kernel, self._center_rows, self.alpha, self.plan, precond, projection, self.period, ranks
        )
        self._run.changed = norm_is_old
        log.info("%s; %s: %s, T %d", self.kernel, self.method, self.plan.describe(), self.period)

    def _head(self, count: int) -> Rows:
        """The first `count` centres of all ranks."""
        ranks = self.ranks
        if ranks.size == 1:
            return self._center_rows[:count]
        if self._all_centers is None:
            return self._encode_like(ranks.all_gather_in_order(self.centers[: ranks.count(count)], count))
        first, self._all_centers = self._all_centers[:count], None
        return self._encode_like(first.to(self.centers))

    @property
    def run(self) -> ProjectedRun:
        """The run that takes the training steps; it exists after `prepare`.

        Raises:
            InputError: `prepare` has not been called.
        """
        return prepared(self._run)

    @property
    def batch_rows(self) -> int:
        """The batch size m."""
        return self.plan.batch_size

    @property
    def parameters_chosen(self) -> dict[str, Any]:
        """The plan's parameters, with the current step size, and those of the projection."""
        own = {"centers": self._num_centers, "projection_period": self.period, "projection": self._projection_name}
        if self.features is not None:
            own["features"] = self.features.to_dict()
        return {**asdict(self.plan), "step_size": self.step_size, **own}

    @property
    def _projection_name(self) -> str:
        iterates = self._run is not None and isinstance(self._run.projection, EigenProProjection)
        return "eigenpro" if iterates else "factor"

    def describe(self) -> str:
        """The parameters on one line, with the current step size."""
        chosen = self.plan.describe_run(self.step_size)
        said = f"p {self._num_centers}, {chosen}, T {self.period} ({self._projection_name})"
        if self.features is None:
            return said
        rounds = f"round {self.round} of at most {self.features.rounds} of a {self.features.metric} metric"
        return f"{rounds}, chosen by {self.chosen_by}; {said}"

    def configure_optimizers(self) -> ProjectedEigenPro:
        """The run's EigenPro 3 or 4, with the planned step size."""
        self._take_postponed()
        return self.run.optimizer

    # Training

    def on_train_start(self) -> None:
        """Encode the training rows."""
        super().on_train_start()
        self.encode_rows(self.trainer.datamodule.train_set.x)  # type: ignore[attr-defined]

    def encode_rows(
        self,
        x: Tensor,  # shape: (n, d)
    ) -> None:
        """Encode the training rows once, if they are 8-bit, the same in every epoch, and the machine is on a CPU."""
        self._train_rows = None
        fixed = not (self._streamed or self._augmented) and self.root is None
        if fixed and self.device.type == "cpu" and self._center_rows.codes is not None:
            self._train_rows = Rows.of(x - self.origin if self.origin.any() else x, like=self._center_rows)

    def rows_of(
        self,
        x: Tensor | Share,  # m rows
        index: Tensor | None = None,  # which training rows they are, shape: (m,)
    ) -> Rows:
        """The encoded rows of a batch, placed as the centres are."""
        if self._train_rows is not None and index is not None:
            return self._train_rows[index]
        x = self.ranks.all_gather_in_order(x.local_rows, x.batch_rows) if isinstance(x, Share) else x
        return Rows.of(self.placed(x), like=self._center_rows)

    def on_train_epoch_start(self) -> None:
        """Remember the state that a diverging epoch goes back to; start the sums of running metrics."""
        super().on_train_epoch_start()
        self.run.start_epoch(self.current_epoch)
        self._running = None
        if self.has_running_metrics:
            self._running = EvaluationMetrics(self.is_classifier, self.target_scale).to(self.device)

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> None:
        """One step on a batch (x, y, ...)."""
        x, y, *index = batch
        rows, left = self.rows_of(x, *index), self._left_of_decay(batch_idx)
        values = self.run.step(rows, y, left, self.optimizers().step)  # type: ignore[union-attr]
        self.step_size = self.run.step_size
        if self._running is not None:
            self._running.update(values, y)

    def _left_of_decay(self, batch_idx: int) -> float:
        """The share of the step size that the decay leaves at this batch."""
        trainer = self.trainer
        if not self.decay or not trainer.max_epochs or trainer.max_epochs < 0:
            return 1.0
        batches = float(trainer.num_training_batches)  # infinite for a stream of unknown length
        done = (self.current_epoch + (batch_idx / batches if math.isfinite(batches) else 0.0)) / trainer.max_epochs
        return min(1.0, (1 - done) / self.decay) ** 2

    def _finish_epoch(self) -> None:
        run = self.run
        run.end_epoch()
        self.step_size = run.step_size
        self._settle()
        super()._finish_epoch()
        self.log("precond/step_size", run.optimizer.param_groups[0]["lr"], on_step=False, on_epoch=True, batch_size=1)

    @property
    def has_running_metrics(self) -> bool:
        """Whether training metrics are means over the epoch's batches."""
        return self._streamed or self.hparams["running_metrics"]

    def _measure_training(self) -> dict[str, float]:
        if self._running is not None:
            return {f"train/{name}_running": value for name, value in self._running.compute().items()}
        metrics = EvaluationMetrics(self.is_classifier, self.target_scale).to(self.device)
        rows = self.trainer.datamodule.train_set  # type: ignore[attr-defined]
        for some in spans(len(rows), EVALUATED_ROWS):
            metrics.update(self._scores(some, rows.x), rows.y[some].to(self.device))
        return {f"train/{name}": value for name, value in metrics.compute().items()}

    @torch.no_grad()
    def _scores(
        self,
        some: slice,
        x: Tensor,  # all training rows, shape: (n, d)
    ) -> Tensor:
        """f at some training rows, shape (m, c)."""
        if self._train_rows is None:
            return self(x[some])
        return self.ranks.all_reduce_sum(kernel_matmul(self.kernel, self._train_rows[some], *self._own_share()))

    @property
    def sq_norm_per_class(self) -> Tensor:
        """alpha_k^T K(Z, Z) alpha_k, shape (c,), float64, without the temporary centres."""
        return self.sq_norm_of(self.alpha.detach()) if self._norm_is_old else self.sq_norm

    @property
    def _norm_is_old(self) -> bool:
        """Whether the weights have changed since `sq_norm` was computed."""
        return self._run is not None and self._run.changed

    def sq_norm_of(
        self,
        weights: Tensor,  # shape: (p, c)
    ) -> Tensor:
        """|sum_j weights_jk K(., z_j)|_H^2 for every output k, shape (c,), float64."""
        return self.run.projection.sq_norm(weights)

    def limit_centers(self) -> Tensor:
        """z_1..z_p with `origin` added, shape (p, d), on the CPU of rank 0; other ranks get only their own centres.

        Raises:
            InputError: the machine has a metric, under which it keeps its centres.
        """
        if self.root is not None:
            raise InputError("limit_centers are of a machine without a metric; take `centers`, and `placed(x)` of rows")
        return self.ranks.gather_in_order(self.centers + self.origin, self._num_centers).cpu()

    def own_rows(
        self,
        per_center: Tensor,  # shape: (p, ...)
    ) -> Tensor:
        """The rows of this rank's centres."""
        return per_center[self.ranks.local_rows(len(per_center))]

    @property
    def num_centers(self) -> int:
        """p, the centres of all ranks."""
        return self._num_centers

    # Checkpoints

    def _require_same_start(self, checkpoint: dict[str, Any]) -> None:
        super()._require_same_start(checkpoint)
        # A period "auto" may be 1 and then more, because memory differs; that is the same solver.
        asked = checkpoint["hyper_parameters"].get("projection_period"), self.hparams["projection_period"]
        periods = machine_part(checkpoint)["period"], self.period
        if (asked[0] == 1) != (asked[1] == 1) and (periods[0] == 1) != (periods[1] == 1):
            theirs, own = (f"EigenPro {3 if T == 1 else 4} with projection_period {T}" for T in periods)
            raise CheckpointError(
                f"the checkpoint was trained by {theirs}, and this run is {own}: resume with the same solver and "
                "projection period"
            )

    def _require_same_run(self, extra: dict[str, Any]) -> None:
        if not self._streamed and extra["data_key"] != self._data_key:
            raise CheckpointError(
                "the checkpoint belongs to other training data: resume with the same data, number of rows, "
                "label noise and seed as the first run"
            )
        own = {"projection_period": self.period}
        warn_of_other_options({"projection_period": extra["period"]}, own, own)  # asked for or not
        if self._projection_name != extra["projection"]:
            raise CheckpointError(
                f"the checkpoint was trained with projections by {extra['projection']}, and memory leads to "
                f"{self._projection_name} now: resume with the same memory, not auto"
            )

    def _extra_state(self) -> dict[str, Any]:
        own = {"plan": asdict(self.plan), "period": self.period, "projection": self._projection_name}
        own["step_size"] = self.step_size
        return {**super()._extra_state(), **own, "data_key": self._data_key, "centers_given": self._centers_given}

    def _settle(self) -> None:
        self.sq_norm = self.sq_norm_per_class
        if self._run is not None:
            self._run.changed = False

    def _load_extra_state(self, extra: dict[str, Any], state: dict[str, Tensor], resuming: bool) -> None:
        if resuming:
            self._require_same_run(extra)
        super()._load_extra_state(extra, state, resuming)
        plan = EigenProPlan.restored(extra["plan"], state["vectors"])
        self.period, self.step_size = extra["period"], extra["step_size"]
        if resuming:
            plan.require_same_run(self.plan)
            warn_of_other_options(asdict(plan), asdict(self.plan), self.hparams)
            self.vectors, self.weights = (state[name].to(self.centers) for name in ("vectors", "weights"))
            if self._run is not None:
                preconditioner = Preconditioner(self.vectors, self.weights)
                self._run.go_on_with(plan, preconditioner, self.period, self.step_size)
        else:
            (p, d), c, (s, q) = state["centers"].shape, len(state["sq_norm"]), state["vectors"].shape
            self._allocate(p, d, c, s, q)
            self._num_centers = p if self.ranks.size == 1 else self.ranks.all_reduce_count(p)
            self._data_key, self._centers_given = extra["data_key"], extra["centers_given"]
            self._load_features(extra, state, d)
        self.plan = plan
