"""A kernel expansion as any torch module: it pickles, copies, and loads the state_dict() of an equal machine."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from kl.distributed.ranks import Ranks
from kl.errors import CheckpointError, InputError
from kl.kernels import Kernel, kernel_from_config
from kl.kernels.configured import comes_from, own_classes
from kl.machines.checkpoints import faults_in, is_same, require_values
from kl.machines.described import require_description
from kl.machines.expansion import KernelExpansion

log = logging.getLogger(__name__)

EXTRA = "_extra_state"  # torch's name for what a state_dict() holds beside parameters and buffers


class StatefulExpansion(KernelExpansion):
    """An expansion whose pickles, copies and state_dict() hold the weights and their meaning, and nothing of a run.

    What a run has made for itself, such as kept kernel values, is left out, because the next run makes it again.
    """

    _kept_in_checkpoints: tuple[str, ...] = ("centers", "origin")
    """The names of the tensors that say what the weights mean."""
    _shared_rows: tuple[str, ...] = ()
    """The names of the tensors of which every rank has its rows (`kl.distributed.ranks`); checkpoints have all rows."""
    _of_a_run: tuple[str, ...] = ("_rows",)
    """The names of the attributes that a run makes for itself; the class has defaults of those read outside a run."""

    _extra_types: ClassVar[dict[str, Any]] = {"kernel": dict, "data_info": dict}
    """The values that a checkpoint or state must hold beside its tensors, as type hints."""

    def __init__(self, kernel: Kernel, precision: str) -> None:
        super().__init__(kernel, precision)
        self._given_kernel = kernel  # its bandwidth may still be "auto"

    # Pickles and copies

    def __getstate__(self) -> dict[str, Any]:
        """What pickle, joblib, torch.save and copy.deepcopy keep.

        Raises:
            InputError: several ranks share the machine, so that this process has only a part of it.
        """
        if self.ranks.size > 1 and self.is_fitted and self._shared_rows:
            raise InputError(
                f"this machine's centres are shared among {self.ranks.size} ranks, and a copy would have those of one: "
                "use trainer.save_checkpoint, which collects them"
            )
        if self.is_fitted:
            self._settle()
        state = {name: value for name, value in super().__getstate__().items() if name not in self._of_a_run}
        return {**state, "ranks": Ranks()}

    def _settle(self) -> None:
        """Bring the tensors of the state up to date; they may lag behind inside an epoch."""

    def _start_anew(self) -> None:
        """Forget the weights, because the training data is another."""
        log.warning("the weights belong to other training data than this: training starts anew")
        self._forget_run()
        del self.alpha
        self.kernel = self._given_kernel

    def _forget_run(self) -> None:
        """Forget what a run has made for itself."""
        for name in self._of_a_run:
            self.__dict__.pop(name, None)
        self.train_metrics, self.eval_metrics = {}, {}

    # state_dict

    def describe_state(self) -> dict[str, Any]:
        """The meaning of the state's tensors, as plain values: the kind of machine, its kernel, its data."""
        kind = type(self).__name__
        return {"kind": kind, "kernel": self.kernel.config(), "data_info": self.data_info, **self._extra_state()}

    def _extra_state(self) -> dict[str, Any]:
        """The values that a subclass adds to `describe_state`."""
        return {}

    def _load_extra_state(self, extra: dict[str, Any], state: dict[str, Tensor], resuming: bool) -> None:
        """Take the values of `_extra_state` and the sizes of the tensors; `resuming` if data has been set up."""

    def get_extra_state(self) -> Tensor:
        """`describe_state` as the bytes of JSON, uint8, shape (k,), because a state_dict() holds tensors alone."""
        return encode_description(self.describe_state() if self.is_fitted else {})

    def set_extra_state(self, state: Tensor) -> None:
        """Do nothing: `_load_from_state_dict` takes sizes and kernel before torch loads the tensors."""

    def _save_to_state_dict(self, *args: Any, **options: Any) -> None:
        if self.is_fitted:
            self._settle()
        super()._save_to_state_dict(*args, **options)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        state = {name.removeprefix(prefix): each for name, each in state_dict.items() if name.startswith(prefix)}
        if "alpha" in state:
            self._take_state(state)
        super()._load_from_state_dict(state_dict, prefix, *rest)  # type: ignore[arg-type]
        if self._rows is None and self.is_fitted:
            self._centers_changed()

    def _take_state(self, state: dict[str, Tensor]) -> None:
        """Become a machine with the kernel and the sizes of a state, unless this machine has them already."""
        extra = decode_description(state.get(EXTRA))
        if extra["kind"] != type(self).__name__:
            raise CheckpointError(f"the state is of a {extra['kind']}, this is a {type(self).__name__}")
        if missing := [name for name in self._kept_in_checkpoints if name not in state]:
            raise CheckpointError(f"the state has no {', '.join(missing)}: give all of a fitted machine's state_dict()")
        require_values(EXTRA, extra, self._extra_types)
        require_description(extra["data_info"])
        kernel, self.data_info = self._kernel_of(extra["kernel"], resuming=False), extra["data_info"]
        if self.is_fitted and kernel == self.kernel and self._has_same_meaning(state):
            return
        self._forget_run()
        self.kernel = kernel
        self._load_extra_state(extra, state, resuming=False)
        for name in self._kept_in_checkpoints:
            setattr(self, name, torch.empty_like(state[name], device="cpu"))  # the dtypes of the state
        self.root = torch.empty_like(state["root"], device="cpu") if "root" in state else None

    def _kernel_of(self, config: dict[str, Any], resuming: bool) -> Kernel:
        """The kernel of a checkpoint or state; its classes are kl's or those of this machine's own kernel."""
        ours = self.kernel if resuming else self._given_kernel
        with faults_in("kernel"):
            theirs = kernel_from_config(config, own_classes(ours))
        if theirs != ours and (resuming or not comes_from(theirs, ours)):
            raise CheckpointError(
                f"the checkpoint was trained with kernel {theirs}; got {ours}: "
                + ("resume with the same kernel and its parameters" if resuming else "load it with the same kernel")
            )
        return theirs

    def _has_same_meaning(self, state: dict[str, Tensor]) -> bool:
        """Whether this machine's tensors that say what the weights mean equal those of a state."""
        if (self.root is None) != ("root" not in state):
            return False
        names = self._kept_in_checkpoints if self.root is None else (*self._kept_in_checkpoints, "root")
        return all(is_same(getattr(self, name), state[name]) for name in names)

    def _centers_changed(self) -> None:
        """Forget what is computed from the centres and therefore not part of a state."""
        self._rows = None


def encode_description(description: dict[str, Any]) -> Tensor:
    """Plain values as the bytes of JSON, uint8, shape (k,)."""
    return torch.frombuffer(bytearray(json.dumps(description).encode()), dtype=torch.uint8)


def decode_description(encoded: Tensor | None) -> dict[str, Any]:
    """The plain values that `encode_description` has encoded.

    Raises:
        CheckpointError: the tensor is missing or damaged, or holds no description of a fitted machine.
    """
    try:
        description = json.loads(bytes(encoded.tolist())) if encoded is not None else {}
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"the state's {EXTRA} is damaged: {error}") from error
    if not isinstance(description, dict) or not {"kind", "kernel", "data_info"} <= description.keys():
        raise CheckpointError(
            f"the state has no {EXTRA}, which names the kernel: give all of a fitted machine's state_dict(), or read a "
            "checkpoint file by load_from_checkpoint"
        )
    return description
