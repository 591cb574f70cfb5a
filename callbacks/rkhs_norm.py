"""The norm of the function being learned, at every epoch or every step."""

from __future__ import annotations

import pytorch_lightning as pl

from callbacks.common import Machine


class RKHSNorm(pl.Callback):
    """Logs rkhs/norm = |f|_H = sqrt(trace(alpha^T K alpha)) and rkhs/norm_class_k = |f_k|_H (k from 0) every epoch.

    A `kl.KernelMachine` carries f(X), so that the norm takes n c products at the end of an epoch. Within an epoch it
    takes another s^2 c, and s^2 kernel values if K(X, X_S) is not kept (see `kl.eigenpro.fitted`). A
    `kl.GeneralKernelMachine` computes it from the weights.

    Args:
        per_step: also log rkhs/norm_step after steps, as often as the trainer's `log_every_n_steps` says.
        per_class: log the norm of every output, too.

    Source: Belkin, Ma, Mandal 2018, arXiv:1802.01396, figure 4: the norm against label noise.
    """

    def __init__(self, per_step: bool = False, per_class: bool = True) -> None:
        self.per_step, self.per_class = bool(per_step), bool(per_class)

    @property
    def counts_batches(self) -> bool:
        """Whether it needs a training batch for each step."""
        return self.per_step

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Machine, *_: object) -> None:
        """Log the norm after the step that was just made, if the trainer logs this step."""
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if self.per_step and (trainer.should_stop or trainer.global_step % every == 0):
            pl_module.log("rkhs/norm_step", pl_module.rkhs_norm, on_step=True, on_epoch=False, batch_size=1)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Machine) -> None:
        """Log the norm and the norms of the outputs."""
        values = {"rkhs/norm": pl_module.rkhs_norm}
        if self.per_class:
            norms = pl_module.rkhs_norm_per_class.tolist()
            values |= {f"rkhs/norm_class_{k}": norm for k, norm in enumerate(norms)}
        pl_module.log_dict(values, batch_size=1)
