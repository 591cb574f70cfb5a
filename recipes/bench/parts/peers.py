"""Time to a training mse of 1e-4, of kl and of other libraries that pip installs."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from kl.errors import InputError
from recipes.bench.child import run_child
from recipes.bench.parts.peer_script import GAUSSIAN_ONLY, PEERS
from recipes.bench.record import Measurement, Task
from recipes.bench.settings import Bench

TARGET_MSE = 1e-4
SCRIPT = Path(__file__).with_name("peer_script.py")
OURS = "kl EigenPro"


def peer_tasks(bench: Bench) -> list[Task]:
    """One task for each kernel: all peers one after the other, each in a process of its own."""
    n, d = min(bench.sizes.peers, len(bench.data.x)), bench.data.x.shape[1]
    seconds = len(PEERS) * (5 + bench.guess(n, d, 20))
    return [
        Task("peers", f"time to mse {TARGET_MSE:g}, {name}", seconds, lambda name=name: measure_peers(bench, name, n))  # type: ignore[misc]
        for name in bench.sizes.peer_kernels
    ]


def measure_peers(bench: Bench, kernel_name: str, n: int, names: tuple[str, ...] = tuple(PEERS)) -> list[Measurement]:
    """The seconds and the mse of every peer, and its time as a ratio to that of kl EigenPro."""
    data = bench.data.first(n)
    with tempfile.TemporaryDirectory(prefix="kl-bench-") as folder:
        file = Path(folder, "problem.npz")
        write_problem(file, bench, kernel_name, n)
        found = []
        for name in names:
            if name in GAUSSIAN_ONLY and kernel_name != "gaussian":
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
            detail = {**values, "reached": reached, "kernel": str(bench.kernels[kernel_name])}
            found.append((name, values.get("seconds"), error, detail))
    ours = next((seconds for name, seconds, error, _ in found if name == OURS and not error), None)
    return [
        Measurement(
            "peers",
            f"{kernel_name}, {name}",
            n,
            data.x.shape[1],
            seconds,
            seconds / ours if seconds and ours else None,
            OURS,
            error=error,
            detail=detail,
        )
        for name, seconds, error, detail in found
    ]


def write_problem(file: Path, bench: Bench, kernel_name: str, n: int) -> None:
    """Write what a peer reads: rows, kernel, target."""
    import numpy as np

    data, config = bench.data.first(n), bench.kernels[kernel_name].config()
    labels = data.labels if data.labels is not None else data.y[:, 0]
    np.savez(
        file,
        x=data.x.numpy(),
        y=data.y.numpy(),
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
