"""The base class of every machine that trains under Lightning: hyper-parameters, set-up, norms and checkpoints."""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, Self, TypeVar

import torch
from torch import Tensor

from kl.checks import plain
from kl.distributed.ranks import Ranks, encode_shared
from kl.distributed.strategy import KernelParallelStrategy
from kl.errors import CheckpointError, InputError
from kl.kernels import Kernel, build_kernel
from kl.kernels.configured import own_classes
from kl.kernels.kernel import kernel_name
from kl.kernels.registry import GivenKernel, given_kernels, stored_kernel
from kl.machines.checkpoints import (
    errors_name,
    faults_in,
    is_same,
    machine_part,
    require_epoch_end,
    require_like,
    require_state,
    require_tensors,
    require_values,
)
from kl.machines.data_facts import AsTrained, DataFacts, TrainingData
from kl.machines.described import require_description
from kl.machines.loaders import training_data
from kl.machines.state import EXTRA, StatefulExpansion, encode_description
from kl.metrics import error
from kl.rows.root import diagonal_of
from kl.rows.rows import Rows
from kl.system.memory import TrainingMemory, parse_memory

log = logging.getLogger(__name__)

R = TypeVar("R")


class Run(Protocol):
    """The object that takes the training steps of a machine."""

    @property
    def last_batch(self) -> tuple[Tensor, Tensor] | None:
        """f(X_B) before the last step and Y_B, shapes (m, c); None before the first step."""


class TrainedExpansion(StatefulExpansion):
    """f(x) = sum_j alpha_j K(x, z_j), which a subclass fits to the training set of the Trainer's datamodule.

    The datamodule must offer `train_set`, a `kl.RowDataset`; the machine sets the datamodule's `batch_size`.
    A subclass defines `prepare`, `num_centers`, `batch_rows`, `parameters_chosen`, `describe`, `sq_norm_per_class`, its
    training step and metrics, and what its checkpoints hold besides the weights.

    Args:
        kernel: a `kl.Kernel`, its name, "package.module:Class", or its `config()`.
        memory: bytes, "8GB", or "auto" (half of what is free), of each rank; ranks on one CPU share the free memory.
        precision: see `KernelExpansion`.
        seed: seed of everything that the machine draws.
        options: hyper-parameters of the subclass, plain values.

    Attributes:
        alpha, centers, origin: see `KernelExpansion`.
        memory: what the run keeps in memory, known while fitting.
        train_metrics: train/mse and, of classifiers, train/error; see `EvaluatedModule`.
    """

    method: str
    """The name of the subclass's method of fitting in reports."""
    own_centers = False
    """Whether the machine has centres of its own; training rows may then be augmented or streamed."""
    ridge: float = 0.0
    """The number that training adds to the diagonal of K(X, X)."""
    shares_ranks = False
    """Whether several ranks can train the machine together; a solver says so once its steps use `ranks`."""
    learns_kernel = False
    """Whether the machine learns the metric of its kernel, so that there is no limit of a given kernel."""
    round = -1
    """Of a machine that learns its metric, the round that f is of; 0 is the plain kernel, -1 before training."""
    scores: Sequence[float] = ()
    """Of a machine that learns its metric, the mean squared error of each round on the rows that choose."""
    chosen_by = ""
    """Of a machine that learns its metric, what chooses the round: "kfold", "holdout", "loo" or "validation"."""
    norm_is_free = True
    """Whether the RKHS norm after a step costs next to nothing, and one rank alone may read it."""

    memory: TrainingMemory
    _same_when_resumed: tuple[str, ...] = ("centers",)
    """Tensors that must be equal in a checkpoint and in the run that resumes from it."""
    _dimensions: ClassVar[dict[str, int]] = {"centers": 2}
    """The numbers of dimensions of those tensors of a checkpoint that determine the sizes of the others."""
    _run: Run | None = None  # set by `prepare`, in machines that have a run
    _of_a_run = (*StatefulExpansion._of_a_run, "_as_trained", "_run")
    _as_trained: AsTrained | None = None  # augments training rows as an epoch does

    def __init__(
        self,
        kernel: Kernel | str | dict[str, Any],
        memory: int | str,
        precision: str,
        seed: int,
        options: dict[str, Any],
    ) -> None:
        super().__init__(build_kernel(kernel), precision)
        self.automatic_optimization = False
        parse_memory(memory)  # an invalid value is refused here, before any data is read
        seed = plain(seed)
        if not isinstance(seed, int) or isinstance(seed, bool):
            raise InputError(f"seed must be a whole number; got {seed!r}")
        own = {"kernel": self.kernel.config(), **options}
        self.save_hyperparameters({**own, "memory": plain(memory), "precision": precision, "seed": seed})
        self._warned_of_kernels = False
        self._streamed = False
        self._epoch_rows: int | None = None  # training rows of an epoch; None if unknown
        self._augmented = False

    # Set-up

    def setup(self, stage: str) -> None:
        """Take the training data and plan the run, on the device that will train."""
        if self.trainer.precision != "32-true":
            raise InputError(
                f'precision must be "32-true": kernel values keep the float type of the features, and training '
                f"diverges where they are rounded further; got {self.trainer.precision!r}"
            )
        overfit = getattr(self.trainer, "overfit_batches", 0)
        if overfit:
            raise InputError(
                "overfit_batches must be 0, since it replaces the order of whole batches that training follows; got "
                f"{overfit}: use a data module with a small train_size"
            )
        self._join_ranks()
        if stage != "fit":
            return
        self.steps_per_batch = 1
        data = training_data(self.trainer, self._budget("cpu"), self.hparams["seed"])
        self._take_for_training(data, self.trainer.strategy.root_device)

    def _take_for_training(self, data: TrainingData | None, device: torch.device) -> None:
        """Take the training data at fit start."""
        self.take(data, device)
        assert data is not None  # take() has seen to it
        data.batch_size = self.batch_rows

    def take(self, data: TrainingData | None, device: torch.device | str = "cpu") -> None:
        """Take the training data of a datamodule that has been set up, and plan the run; see `prepare`.

        Raises:
            InputError: there is no training set, or such a machine cannot train on it.
        """
        facts = DataFacts.of(data)
        if facts.train_set is None:
            raise InputError(
                f"{type(self).__name__} needs a datamodule whose train_set is a kl.RowDataset; use one of datamodules, "
                "ArrayDataModule.from_arrays for arrays of your own, or a DataLoader of (x, y)"
            )
        self._streamed, self._augmented = facts.streamed, facts.as_trained is not None
        if self._streamed and not self.own_centers:
            raise InputError(
                f"{type(self).__name__} has a centre at each training row, and those of "
                f"{facts.name} are a stream: use GeneralKernelMachine (solver='eigenpro4')"
            )
        if self._augmented and not self.own_centers:
            raise InputError(
                f"augment gives rows that are no training rows, and {type(self).__name__} has its centres there: use "
                "GeneralKernelMachine (solver='eigenpro4')"
            )
        self.data_info = facts.description(facts.train_set.x, facts.train_set.y)
        if self.data_info["encoding"].get("origin") and not self.kernel.shift_invariant:
            log.warning(
                "%s is not shift-invariant, and the data module has shifted columns that lie far from 0: f is of x "
                "less the origin; give the data module shift=False to leave them",
                self.kernel,
            )
        self._epoch_rows, self._as_trained = facts.num_rows, facts.as_trained
        self.prepare(facts.train_set.x, facts.train_set.y, device)

    def _join_ranks(self) -> None:
        """Find out which processes share this run."""
        strategy, size = self.trainer.strategy, self.trainer.world_size
        if size > 1 and not isinstance(strategy, KernelParallelStrategy):
            name = getattr(strategy, "strategy_name", type(strategy).__name__)
            raise InputError(
                f"strategy must be kernel_parallel on {size} devices; got {name}: use "
                'Trainer(strategy="kernel_parallel")'
            )
        if size > 1 and not self.shares_ranks:
            raise InputError(
                f"{type(self).__name__} trains on one device, because its steps do not know of others (shares_ranks is "
                f"False); got {size} devices: use devices=1"
            )
        if self.is_fitted and size != self.ranks.size:
            raise InputError(
                f"this machine's centres are shared among {self.ranks.size} ranks; got a Trainer of {size}: load its "
                "checkpoint instead"
            )
        if size != self.ranks.size:
            on_cpu = strategy.root_device.type == "cpu"
            self.ranks = Ranks(self.trainer.global_rank, size, self.trainer.num_devices if on_cpu else 1)

    def _budget(self, device: torch.device | str) -> int:
        """Bytes that this rank may take on the device."""
        return parse_memory(self.hparams["memory"], device, self.ranks.sharing)

    def _resolve_kernel(
        self,
        x: Tensor,  # shape: (n, d)
    ) -> None:
        """Replace a bandwidth "auto" by its value."""
        given, self.kernel = self.kernel, self.kernel.resolve(x, seed=self.hparams["seed"])
        if self.kernel != given:
            log.info("bandwidth auto: the median distance between training rows")

    def _encode_like(
        self,
        first: Tensor,  # the first centres of all ranks, shape: (k, d)
    ) -> Rows:
        """The first centres as `Rows`. The centres of this rank are encoded like them, and so alike on all ranks."""
        head, self._rows = encode_shared(first, self.centers, self.precision, self.ranks)
        return head

    @abstractmethod
    def prepare(
        self,
        x: Tensor,  # shape: (n, d)
        y: Tensor,  # shape: (n, c)
        device: torch.device | str = "cpu",
    ) -> None:
        """Take the training data, which `kl.RowDataset` checks, and plan the run."""

    def __getattr__(self, name: str) -> Any:
        """Torch's parameters and buffers; of a machine without weights, an error that says so.

        Torch would say of a property that reads weights, such as `rkhs_norm`, that the machine has no such attribute.

        Raises:
            InputError: the machine has not been fitted, and the property needs its weights or its plan.
        """
        try:
            return super().__getattr__(name)
        except AttributeError:
            reads_weights = isinstance(getattr(type(self), name, None), property) and name != "is_fitted"
            if reads_weights and not self.is_fitted:
                raise InputError(
                    "this machine holds no weights: call fit or prepare(x, y), or load a checkpoint"
                ) from None
            raise

    @property
    @abstractmethod
    def num_centers(self) -> int:
        """Centres of all ranks."""

    @property
    @abstractmethod
    def batch_rows(self) -> int:
        """Rows of a step."""

    @property
    @abstractmethod
    def parameters_chosen(self) -> dict[str, Any]:
        """The parameters of the run by their names, plain values."""

    @abstractmethod
    def describe(self) -> str:
        """The parameters of the run on one line."""

    @property
    @abstractmethod
    def sq_norm_per_class(self) -> Tensor:
        """|f_k|_H^2, shape (c,), float64."""

    @property
    def batch_error(self) -> float | None:
        """The classification error on the last batch, before its step; None before any step, and for regression."""
        last = None if self._run is None else self._run.last_batch
        return error(*last) if last is not None and self.is_classifier else None

    @property
    def rkhs_norm(self) -> float:
        """|f|_H."""
        return math.sqrt(max(float(self.sq_norm_per_class.sum()), 0.0))

    @property
    def rkhs_norm_per_class(self) -> Tensor:
        """|f_k|_H, shape (c,), float64."""
        return self.sq_norm_per_class.clamp(min=0).sqrt()

    @property
    def importances(self) -> Tensor:
        """The diagonal of a learnt metric M, how much each feature counts, shape (d,), float64; else ones."""
        self._require_fitted()
        if self.root is None:
            return torch.ones(self.centers.shape[1], dtype=torch.float64)
        return diagonal_of(self.root)

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a load needs besides tensors: the resolved kernel, the data's description, the subclass's values.

        Rank 0 gathers and writes the rows that ranks share, so any number of ranks may resume from the checkpoint.
        """
        self._warn_of_unnamed_kernels()
        state = checkpoint["state_dict"]
        state.pop(EXTRA, None)  # files hold it in readable form instead
        for name in self._shared_rows:
            state[name] = self.ranks.gather_in_order(state[name], self.ranks.all_reduce_count(len(state[name])))
        checkpoint["kernel_machine"] = self.describe_state()

    def _warn_of_unnamed_kernels(self) -> None:
        """Warn once if a kernel's class, from a script or a notebook, cannot be found by its name in checkpoints."""
        names = sorted(kernel_name(cls) for cls in own_classes(self.kernel))
        unnamed = [name for name in names if name.startswith("__main__:") or "<locals>" in name]
        if unnamed and not self._warned_of_kernels and self.ranks.rank == 0:
            self._warned_of_kernels, name = True, unnamed[0].rpartition(".")[2].rpartition(":")[2]
            log.warning(
                "checkpoints keep the kernel as %s, a name that no other program finds: put the class into a file such "
                "as mine.py and take it from there; or load with load_from_checkpoint(path, kernel=%s)",
                unnamed[0],
                name,
            )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the sizes and the kernel of the checkpoint.

        Raises:
            CheckpointError: the checkpoint is not of such a machine, is damaged, or belongs to other training data or
                another kernel.
        """
        with errors_name(self._trainer.ckpt_path if self._trainer else None):
            self._take_checkpoint(checkpoint)

    def _take_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        extra, state, resuming = machine_part(checkpoint), checkpoint["state_dict"], self.is_fitted
        type(self)._require_kind(extra)
        require_values("kernel_machine", extra, self._extra_types)
        require_tensors(state, self._dimensions)
        require_description(extra["data_info"])
        if self.ranks.size > 1:
            state |= {name: state[name][self.ranks.local_rows(len(state[name]))].clone() for name in self._shared_rows}
        training = self._trainer is not None and self._trainer.state.fn == "fit"
        if training:
            require_epoch_end(checkpoint)
        if resuming:
            self._require_same_start(checkpoint)
        self.kernel = self._kernel_of(extra["kernel"], resuming)
        self.data_info = extra["data_info"]
        self._load_extra_state(extra, state, resuming)
        expected = {name: each for name, each in self.state_dict().items() if name != EXTRA}
        require_state(state, expected, () if resuming else self._kept_in_checkpoints)
        info, (d, c) = self.data_info, (state["centers"].shape[1], state["alpha"].shape[1])
        if (info["num_features"], info["num_outputs"]) != (d, c):
            raise CheckpointError(
                f"its data_info says d={info['num_features']}, c={info['num_outputs']}, and its weights are for d={d}, "
                f"c={c}: train again"
            )
        if training:
            self._require_trainable(checkpoint)
        if resuming:
            if getattr(self.trainer, "datamodule", None) is not None:
                self.trainer.datamodule.batch_size = self.batch_rows  # type: ignore[attr-defined]
        else:
            for name in self._kept_in_checkpoints:
                setattr(self, name, state[name])  # keeps the dtypes of the checkpoint
            self._centers_changed()
        state[EXTRA] = encode_description(extra)

    @classmethod
    def _require_kind(cls, extra: dict[str, Any]) -> None:
        if extra["kind"] != cls.__name__:
            raise CheckpointError(
                f"the checkpoint holds a {extra['kind']}, this is a {cls.__name__}: resume with the same solver"
            )

    def _require_same_start(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint belongs to this run: the same training data and precision."""
        state = checkpoint["state_dict"]
        for name in self._same_when_resumed:
            if not is_same(getattr(self, name), state[name]):
                raise CheckpointError(
                    f"the checkpoint belongs to other training data (its {name} differ): resume with the same "
                    "data, features, augmentation, number of rows, label noise and seed as the first run"
                )
        hyper_parameters = checkpoint.get("hyper_parameters")
        require_values("hyper_parameters", hyper_parameters, {"precision": str})
        assert isinstance(hyper_parameters, dict)  # require_values has seen to it
        precision = hyper_parameters["precision"]
        if precision != self.precision:  # rounded and unrounded kernel values would be mixed in one f
            raise CheckpointError(
                f"the checkpoint was trained with precision {precision}; got {self.precision}: resume with the "
                "same precision"
            )

    def _require_trainable(self, checkpoint: dict[str, Any]) -> None:
        """Check what Lightning will read of the checkpoint besides this machine's part."""
        optimizer: Any = self.configure_optimizers()
        require_like("optimizer_states", checkpoint.get("optimizer_states"), [optimizer.state_dict()])
        found = checkpoint["optimizer_states"][0]["param_groups"][0]
        if not found.get("lr", 1.0) > 0:
            raise CheckpointError(f"its optimizer_states must have an lr above 0; got {found['lr']}: train again")
        loops, template = checkpoint["loops"]["fit_loop"], self.trainer.fit_loop.state_dict()
        for name in set(loops) & set(template):  # the names differ between versions of Lightning
            require_like(f"loops: {name}", loops[name], template[name])

    @classmethod
    def restored(
        cls,
        checkpoint: dict[str, Any],
        *,
        kernel: GivenKernel | Sequence[GivenKernel] | None = None,
        **options: Any,
    ) -> Self:
        """The machine that the contents of a checkpoint describe.

        Args:
            checkpoint: what `kl.machines.checkpoints.read_checkpoint` returned.
            kernel: the kernel, its class, or "package.module:Class", or a list of these for a sum or product; it must
                be the kernel of the file. Give it if its class is not one of kl's, because a file may not choose code.
            options: arguments of the class that take precedence over the file's, such as memory.

        Raises:
            CheckpointError: the contents describe no machine, or one of another class or kernel.
        """
        hyper_parameters = checkpoint.get("hyper_parameters")
        cls._require_kind(machine_part(checkpoint))
        require_values("hyper_parameters", hyper_parameters, {"kernel": dict})
        assert isinstance(hyper_parameters, dict)  # require_values has seen to it
        given = given_kernels(kernel)
        with faults_in("kernel"):
            found = stored_kernel(hyper_parameters["kernel"], given)
        return super().restored(checkpoint, kernel=found, **options)


def prepared(run: R | None) -> R:
    """The run of a machine.

    Raises:
        InputError: there is no run, because nothing has been prepared.
    """
    if run is None:
        raise InputError("the machine has no run yet: call fit, or prepare(x, y)")
    return run
