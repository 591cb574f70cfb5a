"""The processes that train together: their number, and which of them writes files and logs.

A process that only starts others does not import kl and Lightning, because these imports take seconds.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recipes.options.groups import RunOptions, TrainerOptions

if TYPE_CHECKING:
    from lightning_fabric.plugins import ClusterEnvironment

    from kl.errors import InputError

STRATEGY = "kernel_parallel"
PER_CORE = 4  # the most processes per CPU core; more than one is useful in tests only


@dataclass(frozen=True)
class Processes:
    """The processes that --devices and --num-nodes ask for."""

    devices: int | list[int]
    """The devices of each machine, as in Lightning's Trainer: their number, or the numbers of GPUs."""
    num_nodes: int
    environment: ClusterEnvironment | None
    """What started them: torchrun, SLURM or this command; None before they are started, or if one trains alone."""

    @property
    def here(self) -> int:
        """The number of processes on this machine."""
        return self.devices if isinstance(self.devices, int) else len(self.devices)

    @property
    def size(self) -> int:
        """The number of processes on all machines."""
        return self.here * self.num_nodes

    @property
    def to_start(self) -> bool:
        """Whether this process must start the processes of this machine."""
        return self.size > 1 and self.environment is None

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes files and logs."""
        return self.environment is None or (self.environment.node_rank() == 0 and self.environment.local_rank() == 0)


def find_processes(options: TrainerOptions, run: RunOptions) -> Processes:
    """The processes of a run.

    Raises:
        InputError: an option is out of its range, or another number of processes has been started.
    """
    if options.strategy not in ("auto", STRATEGY):
        raise _wrong(f"strategy must be one of auto, {STRATEGY}; got {options.strategy!r}")
    if options.num_nodes < 1:
        raise _wrong(f"num_nodes must be at least 1; got {options.num_nodes}")
    devices = parse_devices(options.devices, on_gpu=device_of(run) == "cuda")
    asked = Processes(devices, options.num_nodes, None)
    environment, starter = _environment(asked.size)
    if starter and environment is not None and environment.world_size() != asked.size:
        raise _wrong(
            f"devices times num_nodes must be the {environment.world_size()} processes that {starter} has started; "
            f"got {options.devices} and {options.num_nodes}: give both what you told {starter}"
        )
    if asked.size > 1:
        _require_open_files(asked.size)
    return Processes(devices, options.num_nodes, environment if asked.size > 1 else None)


def device_of(options: RunOptions) -> str:
    """The torch device that --accelerator means."""
    import torch

    return "cuda" if options.accelerator != "cpu" and torch.cuda.is_available() else "cpu"


def parse_devices(text: str, on_gpu: bool) -> int | list[int]:
    """The number of devices that --devices means, or the numbers of GPUs.

    Raises:
        InputError: the text means neither, or there are fewer devices.
    """
    import torch

    there = torch.cuda.device_count() if on_gpu else 1
    if text in ("auto", "-1"):
        return there
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts) or (len(parts) == 1 and int(text) < 1):
        raise _wrong(
            f"devices must be auto, a whole number of at least 1, or numbers of GPUs such as 0,2; got {text!r}"
        )
    if len(parts) == 1:
        return check_most("devices", int(text), on_gpu)
    numbers = [int(part) for part in parts]
    if not on_gpu or len(set(numbers)) < len(numbers) or max(numbers) >= there:
        what = f"from 0 to {there - 1}, each once" if on_gpu else "left out on a CPU: give how many"
        raise _wrong(f"devices, as numbers of GPUs, must be {what}; got {text!r}")
    return numbers


def check_most(name: str, value: int, on_gpu: bool) -> int:
    """`value`; InputError if it is more processes than a machine may have."""
    import torch

    most = torch.cuda.device_count() if on_gpu else PER_CORE * (os.cpu_count() or 1)
    if value > most:
        what = "the GPUs that torch sees" if on_gpu else f"{PER_CORE} processes a core"
        raise _wrong(f"{name} must be at most {most}, {what}; got {value}")
    return value


def _require_open_files(size: int) -> None:
    """Let this process open as many files as one of `size` ranks needs; InputError if its hard limit is lower."""
    import resource

    (soft, hard), least = resource.getrlimit(resource.RLIMIT_NOFILE), 128 + 8 * size
    if soft == resource.RLIM_INFINITY or soft >= least:
        return
    if hard != resource.RLIM_INFINITY and hard < least:
        raise _wrong(
            f"each of {size} ranks opens up to {least} files and connections, and the limit here is {hard}: raise it, "
            f"as by ulimit -n {least}, or use fewer --devices"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (least, hard))


def _check_numbers() -> None:
    """InputError if an environment variable with a process's number, a count or a port has no valid number."""
    for name in ("MASTER_PORT", "RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        text, most = os.environ.get(name, "0"), 65535 if name == "MASTER_PORT" else 10**6
        if not (text.isascii() and text.isdigit() and int(text) <= most):
            raise _wrong(
                f"the environment variable {name} must be a whole number from 0 to {most}; got {text!r}: set it "
                "right, or unset it where one machine trains alone"
            )


def _environment(size: int) -> tuple[ClusterEnvironment | None, str]:
    """The environment of these processes, and the name of what started all of them: torchrun, SLURM or ""."""
    by_torchrun, by_another = "TORCHELASTIC_RUN_ID" in os.environ, "LOCAL_RANK" in os.environ
    if size > 1 or by_torchrun:
        _check_numbers()
    if not (by_torchrun or (size > 1 and (by_another or "SLURM_NTASKS" in os.environ))):
        return None, ""
    from lightning_fabric.plugins.environments import LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment

    if by_torchrun:
        return TorchElasticEnvironment(), "torchrun"
    if SLURMEnvironment.detect():
        try:
            # No requeue, because Lightning would save inside an epoch, and runs resume only from the end of one.
            return SLURMEnvironment(auto_requeue=False), "SLURM"
        except RuntimeError as error:  # --ntasks-per-node is missing
            raise _wrong(f"devices are as many as SLURM's tasks on a machine: {error}") from error
    return (LightningEnvironment() if by_another else None), ""


def _wrong(message: str) -> InputError:
    from kl.errors import InputError

    return InputError(message)
