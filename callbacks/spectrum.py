"""The spectrum that the preconditioner was built from, before and after preconditioning."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytorch_lightning as pl
from matplotlib.figure import Figure

from callbacks.common import Machine
from callbacks.figures import BLACK, BLUE, GREY, ORANGE, figure_style, log_figure, new_figure
from kl.eigenpro.preconditioner import DAMPING

POINTS = 200  # of a curve that is kept


class Spectrum(pl.Callback):
    """Logs the figure precond/eigenvalues at fit start: the eigenvalues lambda_i with and without preconditioning.

    The preconditioner turns lambda_i into lambda_i (lambda_q / lambda_i)^a for i <= q, a = 0.95, and leaves the others.
    The largest damped eigenvalue, the first, sets the step size. For `kl.KernelMachine` the lambda_i are those of
    K(X_S, X_S)/s.

    Attributes:
        found: top_q, s, and at most `POINTS` of the eigenvalues with their index i, as plain values; None before
            the fit, and for a machine without a preconditioner.

    Source: Ma, Belkin 2019, arXiv:1806.06144.
    """

    def __init__(self) -> None:
        self.found: dict[str, Any] | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Machine) -> None:
        """Draw and log the figure; `setup` has planned the run."""
        self.found = None
        if getattr(pl_module, "eigenvalues", None) is not None:  # EigenPro's machines have them
            values = pl_module.eigenvalues.double().cpu().numpy()
            self.found = plain_spectrum(values, pl_module.plan.top_q)
            log_figure(trainer, "precond/eigenvalues", spectrum_figure(values, pl_module.plan.top_q))


def plain_spectrum(
    eigenvalues: np.ndarray,  # lambda_1 >= lambda_2 >= ..., shape: (s,)
    top_q: int,
) -> dict[str, Any]:
    """s, top_q, and the eigenvalues that a curve of at most `POINTS` points over log i needs, with their i from 1."""
    s = len(eigenvalues)
    steps = {round(float(i)) for i in np.geomspace(1, s, POINTS - 1)} if s else set()
    index = sorted(steps | ({top_q} if top_q else set()))
    return {"s": s, "top_q": top_q, "index": index, "eigenvalue": [float(eigenvalues[i - 1]) for i in index]}


def damped_eigenvalues(
    eigenvalues: np.ndarray,  # lambda_1 >= lambda_2 >= ..., shape: (s,)
    top_q: int,
    damping: float = DAMPING,
) -> np.ndarray:
    """lambda_i (lambda_q / lambda_i)^a for i <= q, lambda_i beyond; shape (s,)."""
    damped = eigenvalues.copy()
    if top_q > 0:
        damped[:top_q] *= (eigenvalues[top_q - 1] / eigenvalues[:top_q]) ** damping
    return damped


def spectrum_figure(
    eigenvalues: np.ndarray,  # shape: (s,)
    top_q: int,
) -> Figure:
    """Eigenvalue against index, both axes logarithmic, with q marked."""
    index = np.arange(1, len(eigenvalues) + 1)
    # Smaller eigenvalues are rounding errors of the decomposition.
    shown = eigenvalues > len(eigenvalues) * np.finfo(np.float64).eps * eigenvalues[0]
    with figure_style():
        figure = new_figure(5.0, 3.4)
        axes = figure.add_subplot()
        axes.loglog(index[shown], eigenvalues[shown], color=BLUE, label="of the kernel")
        if top_q > 0:
            damped = damped_eigenvalues(eigenvalues, top_q)
            axes.loglog(index[:top_q], damped[:top_q], color=ORANGE, linestyle="--", label="preconditioned")
            axes.axvline(top_q, color=GREY, linewidth=0.9, linestyle=":")
            axes.annotate(
                f" q = {top_q}", (top_q, 0.97), xycoords=("data", "axes fraction"), va="top", color=BLACK, fontsize=9
            )
        axes.set_xlabel("index i")
        axes.set_ylabel(r"eigenvalue $\lambda_i$ of $K(X_S, X_S)/s$")
        axes.set_title(f"Spectrum of the subsample, s = {len(eigenvalues)}", loc="left")
        axes.legend(loc="lower left")
    return figure
