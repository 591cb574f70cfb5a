"""Checkpoints that a crash cannot spoil: written beside the old file, then renamed over it in one step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from kl.errors import KLError
from kl.machines.checkpoints import errors_name, read_checkpoint, require_lightning
from kl.system.files import written_whole


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes to a temporary file in the same folder, flushes it to disk, and renames it over the target.

    Whenever the process is killed, the old checkpoint or the new one is on disk, complete. Loads with
    weights_only=True.

    Lightning's own writer puts its temporary file into the system's temporary folder. If that is on another file
    system, the last step is a copy, which a crash can cut short.

    Attributes:
        epochs: epochs trained at the last checkpoint that was written.
    """

    epochs = 0

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write the checkpoint.

        Raises:
            KLError: the file could not be written, for example on a full disk; the old file is unchanged.
        """
        try:
            with written_whole(path) as file:
                torch.save(checkpoint, file)
                self.epochs = int(checkpoint.get("epoch", -1)) + 1
        except (OSError, RuntimeError) as error:  # torch turns some write errors into RuntimeError
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())
            raise KLError(
                f"the checkpoint {path} could not be written ({reason}): free some space or give another --log-dir; "
                "a previous checkpoint there is unchanged"
            ) from error

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        """Read a checkpoint, on the CPU; see `read_checkpoint`.

        Raises:
            CheckpointError: the file is missing, damaged, or was not written by a Trainer.
        """
        checkpoint = read_checkpoint(path)
        with errors_name(path):
            require_lightning(checkpoint)
        return checkpoint


def last_checkpoint(folder: str | Path) -> ModelCheckpoint:
    """Keep `last.ckpt` in `folder`, written after each epoch: a crash loses at most the epoch it happens in."""
    return ModelCheckpoint(
        dirpath=folder,
        filename="last",
        save_top_k=1,
        every_n_epochs=1,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
