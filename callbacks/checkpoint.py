"""Checkpoints that a crash cannot spoil: written beside the old file, then put in its place in one step."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from kl.errors import CheckpointError, KLError
from kl.files import written_whole


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes to a temporary file in the same folder, flushes it to disk, and renames it over the target.

    Whoever kills the process, and whenever, finds the old checkpoint or the new one, whole. Loads with
    weights_only=True.

    Lightning's own writer keeps its temporary file in the system's temporary folder; where that is another file system
    the last step is a copy, which can be cut short.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write the checkpoint.

        Raises:
            KLError: it could not be written, as on a full disk; the old file is as it was.
        """
        try:
            with written_whole(path) as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:  # torch turns some write errors into RuntimeError
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())
            raise KLError(
                f"the checkpoint {path} could not be written ({reason}): free some space or give another --log-dir; "
                "a previous checkpoint there is unchanged"
            ) from error

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        """Read a checkpoint, on the CPU; see `read_checkpoint`."""
        return read_checkpoint(path)


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The contents of a checkpoint file, with weights_only=True.

    Raises:
        CheckpointError: there is no such file, or it is damaged or not a checkpoint.
    """
    try:
        with zipfile.ZipFile(path) as file:
            if file.testzip() is not None:  # torch.load does not look at the checksums
                raise zipfile.BadZipFile
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(
            f"checkpoint {path} cannot be read: {error.strerror or error}: give the last.ckpt of a run of `kl fit`"
        ) from error
    except (RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile, EOFError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path} is damaged or not a checkpoint: give the last.ckpt of a run of `kl fit`, or train again"
        ) from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise CheckpointError(f"{path} is not a checkpoint of a Lightning run: give the last.ckpt that `kl fit` wrote")
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
