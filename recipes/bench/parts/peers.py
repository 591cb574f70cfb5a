"""Time to a training mse of 1e-4, of kl and of other libraries that pip installs."""

from __future__ import annotations

import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch

import kl
from kl.errors import InputError
from kl.rows.rows import one_hot
from recipes.bench.child import run_child
from recipes.bench.parts.peer_script import GAUSSIAN_ONLY, PEERS
from recipes.bench.record import Measurement, Task
from recipes.bench.settings import Bench, BenchData, chosen_kernels

TARGET_MSE = 1e-4
SCRIPT = Path(__file__).with_name("peer_script.py")
OURS = "kl EigenPro"


def peer_tasks(bench: Bench) -> list[Task]:
    """One task for each kernel and each set: all peers one after the other, each in a process of its own."""
    tasks = []
    sets = [(bench.data.first(bench.sizes.peers), bench.kernels)]
    for d in bench.sizes.peer_features:
        data = smooth_floats(bench.sizes.peer_floats, d, bench.seed)
        sets.append((data, chosen_kernels(data, bench.seed)))
    for data, kernels in sets:
        seconds = len(PEERS) * (5 + bench.guess(len(data.x), data.x.shape[1], 20))
        for name in bench.sizes.peer_kernels:
            title = f"time to mse {TARGET_MSE:g}, {data.name}, {name}"
            tasks.append(Task("peers", title, seconds, partial(measure_peers, bench, data, kernels[name])))
    return tasks


def smooth_floats(n: int, d: int, seed: int) -> BenchData:
    """Rows of d normal features, where the kernel's function takes most of the time, and a smooth target of variance 1.

    y = sqrt(2) sin(<w, x> + b) with |w| = 1; 1000 further rows are the test set.
    """
    generator = torch.Generator().manual_seed(seed)
    x, w = torch.randn(n + 1000, d, generator=generator), torch.randn(d, 1, generator=generator)
    y = 2**0.5 * (x @ (w / w.norm()) + torch.rand(1, generator=generator)).sin()
    return BenchData(f"floats, d = {d}", x[:n], y[:n], None, (x[n:], y[n:]))


def measure_peers(
    bench: Bench, data: BenchData, kernel: kl.Kernel, names: tuple[str, ...] = tuple(PEERS)
) -> list[Measurement]:
    """The seconds and the errors of every peer, and its time as a ratio to that of kl EigenPro."""
    kernel_name = kernel.name
    with tempfile.TemporaryDirectory(prefix="kl-bench-") as folder:
        file = Path(folder, "problem.npz")
        write_problem(file, bench, data, kernel)
        found = []
        for name in names:
            if name in GAUSSIAN_ONLY and (kernel_name != "gaussian" or data.labels is None):
                continue
            python = sys.executable if name.startswith("kl") else bench.sizes.peer_python or sys.executable
            # -P, so that nothing is imported from the script's folder, which has modules such as `limit`.
            outcome = run_child([python, "-P", str(SCRIPT), name, str(file)], bench.sizes.time_limit)
            values = outcome.values
            mse = values.get("train_mse")
            reached = None if mse is None else mse <= TARGET_MSE
            error = outcome.error
            if reached is False:
                error = f"stopped at mse {mse:.1e}"
            detail = {**values, "reached": reached, "kernel": str(kernel)}
            found.append((name, values.get("seconds"), error, detail))
    ours = next((seconds for name, seconds, error, _ in found if name == OURS and not error), None)
    return [
        Measurement(
            "peers",
            f"{kernel_name}, {name}" if data.name == bench.data.name else f"{data.name}, {kernel_name}, {name}",
            len(data.x),
            data.x.shape[1],
            seconds,
            seconds / ours if seconds and ours else None,
            OURS,
            error=error,
            detail=detail,
        )
        for name, seconds, error, detail in found
    ]


def write_problem(file: Path, bench: Bench, data: BenchData, kernel: kl.Kernel) -> None:
    """Write what a peer reads: rows, kernel, target."""
    import numpy as np

    config = kernel.config()
    labels = data.labels if data.labels is not None else data.y[:, 0]
    x_test, y_test = data.test or (data.x[:1], data.y[:1] if data.labels is None else data.labels[:1])
    if data.labels is not None:
        y_test = one_hot(y_test, data.y.shape[1])
    np.savez(
        file,
        x=data.x.numpy(),
        y=data.y.numpy(),
        x_test=x_test.numpy(),
        y_test=y_test.numpy(),
        labels=labels.numpy(),
        classes=data.labels is not None,
        kernel=config["kernel"],
        bandwidth=float(config["bandwidth"]),
        target=TARGET_MSE,
        device=bench.device,
        seed=bench.seed,
    )


def check_python(path: str | None) -> str | None:
    """The Python that runs the other libraries.

    Raises:
        InputError: there is no Python at this path.
    """
    if path is not None and shutil.which(path) is None:
        raise InputError(f"peer_python must be the path of a Python that has the other libraries; got {path!r}")
    return path
