"""The base class of all data modules: sizes, label noise, seeds, and loaders of whole-tensor batches."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping
from typing import Any, Self

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.augment import Augmentation, AugmentedImages, AugmentedRows
from datamodules.batches import FeatureRows, whole_batches
from datamodules.facts import Facts
from datamodules.holdout import check_share, hold_out
from datamodules.noise import add_label_noise, check_noise
from datamodules.patches import kept_features, learn, passing_features, patches_of
from datamodules.raw import RawData
from datamodules.sampling import draw_subset
from datamodules.stored import plain_value, restored
from kl.checks import check_count_or_none, check_seed
from kl.distributed.ranks import Ranks, Share
from kl.distributed.strategy import KernelParallelStrategy
from kl.errors import CheckpointError, InputError
from kl.machines.checkpoints import require_values, require_weights_only
from kl.machines.loaders import rows_for_steps
from kl.rows.batches import BatchIndexSampler, derive_seed, indexed_batches
from kl.rows.encoding import FeatureEncoding, say_merged
from kl.rows.pixels import channels_first
from kl.rows.rows import RowDataset, data_key, one_hot
from kl.system.files import expand_home

log = logging.getLogger(__name__)

DEFAULT_BATCH_SIZE = 256  # Belkin, Ma, Mandal 2018, arXiv:1802.01396
EVAL_BATCH_SIZE = 4096


class KernelDataModule(pl.LightningDataModule):
    """A training set, and optionally a validation part and a test set: features (n, d) float32, targets (n, c).

    A new data set is a subclass with a `name` and a `load`; a set that is downloaded derives from
    `datamodules.download.DownloadedDataModule`. A set that `--data` names also has `facts`, and a line in
    `datamodules.registry`.
    The test set is optional. With `validation` 0 the val/* metrics are computed on the test set, so nothing may be
    chosen by them. With `validation` above 0 they are computed on the rows held out, and only `trainer.test` uses the
    test set.

    Args:
        data_dir: folder of downloaded sets; None takes the environment variable KL_DATA_DIR, else "data".
        train_size: training rows to draw without replacement; None takes all, in their order.
        test_size: test rows to draw in the same way.
        label_noise: fraction eps of the labels to replace, in [0, 1].
        noise_kind: "random" (uniform over all classes) or "flip" (always another class).
        noise_seed: seed of the noise alone.
        seed: seed of the subsets and of the order of the training batches.
        batch_size: training rows of a step, read when a loader is built. A KernelMachine sets it to the
            size it chose; None leaves the choice to the machine, and means 256 if no machine chooses.
        download: fetch a missing set in `prepare_data`; False never touches the network.
        augment: "shift", "shift:PIXELS", "flip" or "shift,flip": training images are changed at random in every epoch
            (see `datamodules.augment`). Only for machines with centres of their own.
        validation: share of the training rows to hold out, in [0, 1), drawn by `seed` from the train_size rows, the
            same share of every class. Label noise is drawn first.
        patches: options of `kl.Patches`, by which the features are those of image patches, learnt from the training
            images, and kept on disk (`kl.features.patch_cache`); {} takes the defaults. None keeps the pixels.
        shift: whether the median is subtracted from float64 columns that would lose digits in float32. Give False for
            kernels that are not shift-invariant, because the shift changes their values.

    After `setup`:
        train_set: RowDataset, without the rows held out.
        validation_set: RowDataset of the rows held out; None with validation 0.
        test_set: RowDataset; None if the data has no test set.
        val_set: the set of the val/* metrics: validation_set, or with validation 0 the test set, which may be None.
            In all sets but train_set, y is clean; y_noisy is noised like the training labels, None without label noise.
        task, num_outputs (c), num_features (d), class_names, image_shape.
        encoding: the `FeatureEncoding` of all three sets, fitted on all training rows that `load` gives;
            `encoding.encode(x)` makes features of new samples.
        clean_labels: training labels before noise, shape (n,), long; None for regression.
        noise_mask: which training labels were drawn for replacement, shape (n,), bool.

    Raises:
        InputError: an argument is out of its range, or the training set holds a single class.

    Example:
        >>> class Line(KernelDataModule):
        ...     name = "line"
        ...     def load(self):
        ...         x = torch.linspace(0, 1, 10)[:, None]
        ...         return RawData(x, 2 * x, x, 2 * x)
        >>> data = Line(train_size=4)
        >>> data.setup()
        >>> data.train_set.x.shape, data.task
        (torch.Size([4, 1]), 'regression')
    """

    name: str = ""
    source: str = ""
    """Where the rows came from: the name, unless a stand-in was read ("cifar10-jpeg")."""

    facts: Facts | None = None
    """Facts about a published set; None for the user's own data."""

    streamed = False
    """Whether training batches are read while training runs; `train_set` is then a sample of the rows."""

    train_set: RowDataset
    validation_set: RowDataset | None
    test_set: RowDataset | None
    encoding: FeatureEncoding
    clean_labels: Tensor | None
    noise_mask: Tensor
    task: str
    num_outputs: int
    num_features: int
    class_names: list[str]
    image_shape: tuple[int, int, int] | None

    def __init__(
        self,
        *,
        data_dir: str | os.PathLike[str] | None = None,
        train_size: int | None = None,
        test_size: int | None = None,
        label_noise: float = 0.0,
        noise_kind: str = "random",
        noise_seed: int = 0,
        seed: int = 0,
        batch_size: int | None = DEFAULT_BATCH_SIZE,
        download: bool = True,
        augment: str | None = None,
        validation: float = 0.0,
        patches: Mapping[str, Any] | None = None,
        shift: bool = True,
    ) -> None:
        super().__init__()
        self.shift = bool(shift)
        self.train_size = check_count_or_none("train_size", train_size, or_none="all rows")
        self.test_size = check_count_or_none("test_size", test_size, or_none="all rows")
        self.batch_size = check_count_or_none("batch_size", batch_size, or_none="the model's choice")
        check_noise(label_noise, noise_kind)
        self.label_noise, self.noise_kind = float(label_noise), noise_kind
        self.noise_seed, self.seed = check_seed("noise_seed", noise_seed), check_seed("seed", seed)
        self.data_dir = expand_home(data_dir or os.environ.get("KL_DATA_DIR") or "data")
        self.download = bool(download)
        self.augmentation = None if augment is None else Augmentation.parse(augment)
        self.validation = check_share("validation", validation)
        self.patches = patches_of(patches)
        if self.streamed and self.validation:
            raise InputError(
                f"validation holds out rows of a training set in memory, and this one is a stream; got {validation}: "
                "leave it out; val/* is then of the stream's test set"
            )
        self._is_setup = False
        self._pixels: Tensor | None = None  # of the training rows, if patches of augmented images are taken
        self._save_plain_hyperparameters()

    def load(self) -> RawData:
        """Read both sets from disk or memory. Each data module defines this method; `setup` calls it once."""
        raise InputError(f"the data module {type(self).__name__} must define load(self) -> RawData")

    def setup(self, stage: str | None = None) -> None:
        """Load the data and draw subset and noise; later calls do nothing."""
        if self._is_setup:
            return
        raw = self.load()
        self.task, self.class_names, self.image_shape = raw.task, list(raw.class_names), raw.image_shape
        self.name = self.name or type(self).__name__
        self.source = self.source or self.name
        x_train, y_train = self._subset("train", raw.x_train, raw.y_train, self.train_size)
        self._fit_encoding(raw.x_train)
        features = self._encoded(x_train, "x_train")
        say_merged("x_train", x_train, features)
        x_train, test = features, self._test_rows(raw)
        if test is not None:
            test = self._encoded(test[0], "x_test"), test[1]
        if self.augmentation is not None:
            self.augmentation.require_images(self.image_shape, self.name)
        if self.patches is not None:
            x_train, test = self._patch_features(x_train, test)
        if self.task == "classification":
            self._set_classes(x_train, y_train.long(), test)
        else:
            self._set_regression(x_train, y_train, test)
        self._hold_out()
        self.num_features = self.train_set.x.shape[1]
        self.num_outputs = self.train_set.y.shape[1]
        self._is_setup = True

    def _fit_encoding(self, x: Tensor) -> None:
        """Fit the scale and the origin of all features to the training rows `x`."""
        # Augmentation brings in pixels of value 0, which would become edges if each pixel had an origin.
        shift = self.shift and self.augmentation is None and self.patches is None
        self.encoding = FeatureEncoding.fit(x, images=self.image_shape is not None, shift=shift)

    def _encoded(self, x: Tensor, name: str, quiet: bool = False) -> Tensor:
        """Samples as rows of features, or of the pixels that patches are taken from, of which 8-bit ones stay so."""
        if self.patches is not None and x.dtype == torch.uint8 and self.encoding.dtype == "uint8":
            return channels_first(x).reshape(len(x), -1)
        return self.encoding.encode(x, name, quiet)

    def _patch_features(
        self, x_train: Tensor, test: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """The features of both sets, float32; the rows are then no images any more."""
        assert self.patches is not None  # the caller has looked
        learn(self.patches, x_train, self.image_shape, self.name)
        self.image_shape = None
        self._pixels = None if self.augmentation is None else x_train
        train = kept_features(self.patches, x_train)
        return train, None if test is None else (kept_features(self.patches, test[0]), test[1])

    @property
    def _augmented(self) -> AugmentedImages | None:
        """The training images as epochs have them; None without augmentation."""
        shape = self.image_shape if self.patches is None else self.patches.image
        if self.augmentation is None or shape is None:
            return None
        pixels = self.train_set.x if self._pixels is None else self._pixels
        return AugmentedImages(pixels, shape, self.augmentation, self.seed)

    def _passing(self, pixels: Tensor) -> Tensor:
        """The features of augmented or streamed pixels, by the Trainer's device if patches are taken from them."""
        if self.patches is None:
            return pixels
        device = pixels.device if self.trainer is None else self.trainer.strategy.root_device
        return passing_features(self.patches, pixels, device)

    def _passing_share(self, pixels: Tensor) -> Tensor | Share:
        """The same of a batch, of which a rank that shares the run computes its own rows alone."""
        ranks = self._ranks
        if ranks is None or self.patches is None:
            return self._passing(pixels)
        return Share(self._passing(pixels[ranks.local_rows(len(pixels))]), len(pixels))

    @property
    def _ranks(self) -> Ranks | None:
        """The ranks that share a training run; None outside of one."""
        trainer = self.trainer
        if trainer is None or not trainer.training or not isinstance(trainer.strategy, KernelParallelStrategy):
            return None
        return Ranks(trainer.global_rank, trainer.world_size)

    @property
    def num_rows(self) -> int:
        """Training rows of an epoch."""
        return len(self.train_set)

    def as_trained(self, index: Tensor | None = None, draw: int = 0, chosen: Tensor | None = None) -> Tensor:
        """Rows of train_set as an epoch has them, augmented if augmentation is on; the same for equal arguments.

        Args:
            index: the rows, shape (k,); None is all.
            draw: the number of the draw of changes.
            chosen: which of these k rows to give, shape (m,), where the others need no features; None is all.

        Returns:
            Features, shape (k, d) or (m, d).
        """
        if (images := self._augmented) is None:
            rows = self.train_set.x if index is None else self.train_set.x[index]
            return rows if chosen is None else rows[chosen]
        pixels = images.drawn(index, draw)
        pixels = pixels if chosen is None else pixels[chosen]
        return self._passing(pixels).to(pixels.device)

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches (x, y, index), their order a pure function of seed and epoch.

        While a machine trains whose `steps_read_rows` is False, as `kl.KernelMachine`'s is, they are (index,), each for
        several steps if the machine has `steps_per_batch`.
        """
        n, size, images = len(self.train_set), self.batch_size or DEFAULT_BATCH_SIZE, self._augmented
        if images is not None:
            sampler = BatchIndexSampler(n, size, self.seed)
            return indexed_batches(AugmentedRows(images, self.train_set.y, sampler, self._passing_share), sampler)
        rows, steps = rows_for_steps(self.trainer, self.train_set)
        return indexed_batches(rows, BatchIndexSampler(n, steps * size, self.seed))

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Lightning's, which looks at length for what to move; row numbers that are there already stay."""
        if len(batch) == 1 and isinstance(batch[0], Tensor) and batch[0].device == device:
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """With ranks that share a run, only this rank's share of a training batch's features moves to its device."""
        ranks = self._ranks
        if ranks is None or len(batch) == 1 or isinstance(batch[0], Share):
            return batch
        x, *rest = batch
        return (Share(x[ranks.local_rows(len(x))], len(x)), *rest)

    @property
    def val_set(self) -> RowDataset | None:
        """The set of the val/* metrics: the validation part, or with validation 0 the test set."""
        return self.validation_set if self.validation else self.test_set

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """`val_set`: batches (x, y, index) in order, with clean targets; no loader if `val_set` is None."""
        if self.val_set is None:
            warnings.filterwarnings("ignore", message="Total length of `list` across ranks is zero")  # intended here
            return []
        return whole_batches(self.val_set, EVAL_BATCH_SIZE)

    def test_dataloader(self) -> DataLoader:
        """The test set: batches (x, y, index) in order, with clean targets.

        Raises:
            InputError: there is no test set.
        """
        return whole_batches(self.require_test_set(), EVAL_BATCH_SIZE)

    def predict_dataloader(self) -> DataLoader:
        """The test features alone: batches x in order.

        Raises:
            InputError: there is no test set.
        """
        return whole_batches(FeatureRows(self.require_test_set().x), EVAL_BATCH_SIZE)

    def state_dict(self) -> dict[str, Any]:
        """The validation part and the encoding, by which a resumed run checks that its data is the same."""
        held = {"validation": self.validation, "validation_rows": self._digest_of_held_out()}
        return {**held, "encoding": self.encoding.to_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Check that the checkpoint's run held out the same rows, and encoded features in the same way.

        Raises:
            CheckpointError: the rows or the encoding differ.
        """
        types = {"encoding": dict, "validation": float, "validation_rows": str}
        require_values("data module", state_dict, types)
        if state_dict["encoding"] != self.encoding.to_dict():
            raise CheckpointError(
                "the checkpoint was trained on features of another scale or origin: resume with the same --data, in "
                "the same dtype"
            )
        share, rows = state_dict["validation"], state_dict["validation_rows"]
        if (share, rows) != (self.validation, self._digest_of_held_out()):
            which = f"its share is {share:g}, ours {self.validation:g}" if share != self.validation else "other rows"
            raise CheckpointError(
                f"the checkpoint was trained with another validation part ({which}): resume with the same "
                "--validation, --data, --train-size, --label-noise and --seed"
            )

    def _digest_of_held_out(self) -> str:
        """A hash of features and labels of the validation part; empty without a validation part."""
        held = self.validation_set
        return "" if held is None else data_key(held.x, held.y if held.y_noisy is None else held.y_noisy)

    def require_test_set(self) -> RowDataset:
        """The test set.

        Raises:
            InputError: there is no test set.
        """
        if self.test_set is None:
            raise InputError(
                f"{self.name} has no test set: give its data one (x_test and y_test, or test/), or a loader of your own"
            )
        return self.test_set

    def _test_rows(self, raw: RawData) -> tuple[Tensor, Tensor] | None:
        """The requested test rows; None if the data has no test set."""
        if raw.x_test is None or raw.y_test is None:
            log.info("%s has no test set, which is optional: there will be no test metrics", self.name)
            if self.test_size is not None:
                raise InputError(f"test_size is of a test set, and {self.name} has none; got {self.test_size}")
            return None
        return self._subset("test", raw.x_test, raw.y_test, self.test_size)

    def _hold_out(self) -> None:
        """Take the validation part out of the training set."""
        self.validation_set = None
        if not self.validation:
            return
        # Stratified by clean labels, so that the same rows are held out whatever the noise.
        rows, labels, seed = self.train_set, self.clean_labels, derive_seed(self.seed, "validation")
        kept, held = hold_out(len(rows), self.validation, seed, labels)
        clean = rows.y[held] if labels is None else one_hot(labels[held], rows.y.shape[1])
        noisy = rows.y[held] if self.label_noise > 0 else None
        self.validation_set = RowDataset(rows.x[held], clean, noisy)
        self._pixels = None if self._pixels is None else self._pixels[kept]
        self.train_set = RowDataset(rows.x[kept], rows.y[kept])
        self.noise_mask = self.noise_mask[kept]
        self.clean_labels = None if labels is None else labels[kept]

    def _subset(self, part: str, x: Tensor, y: Tensor, size: int | None) -> tuple[Tensor, Tensor]:
        if size is not None and size > len(x):
            raise InputError(
                f"{part}_size must be from 1 to {len(x)}, the rows of {self.name}'s {part} set; got {size}: "
                f"give a smaller one, or None for all"
            )
        rows = draw_subset(len(x), size, derive_seed(self.seed, f"{part} subset"))
        # The subset is drawn before pixels become floats, so only its rows take float memory, not the whole set.
        return (x, y) if rows is None else (x[rows], y[rows])

    def _set_classes(self, x_train: Tensor, y_train: Tensor, test: tuple[Tensor, Tensor] | None) -> None:
        c = len(self.class_names)
        if bool((y_train == y_train[0]).all()):
            only = self.class_names[int(y_train[0])]
            remedy = "give samples of at least two classes"
            if self.train_size is not None:
                remedy = f"raise train_size (got {self.train_size}) or change the seed"
            raise InputError(
                f"the training set of {self.name} must hold at least two classes; "
                f"all {len(y_train)} rows are of class {only!r}: {remedy}"
            )
        noisy, self.noise_mask = self._noisy(y_train, "train")
        self.clean_labels = y_train.clone()
        self.train_set, self.test_set = RowDataset(x_train, one_hot(noisy, c)), None
        if test is not None:
            x_test, y_test = test[0], test[1].long()
            y_noisy = one_hot(self._noisy(y_test, "test")[0], c) if self.label_noise > 0 else None
            self.test_set = RowDataset(x_test, one_hot(y_test, c), y_noisy)

    def _noisy(self, labels: Tensor, part: str) -> tuple[Tensor, Tensor]:
        seed = derive_seed(self.noise_seed, f"{part} noise")
        return add_label_noise(labels, self.label_noise, len(self.class_names), self.noise_kind, seed)

    def _set_regression(self, x_train: Tensor, y_train: Tensor, test: tuple[Tensor, Tensor] | None) -> None:
        if self.label_noise > 0:
            raise InputError(
                f"label_noise replaces class labels, and {self.name} is a regression set; got "
                f"{self.label_noise}: leave it at 0, or store integer labels"
            )
        self.train_set = RowDataset(x_train, _as_targets(y_train))
        self.test_set = None if test is None else RowDataset(test[0], _as_targets(test[1]))
        self.noise_mask = torch.zeros(len(y_train), dtype=torch.bool)
        self.clean_labels = None

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls, checkpoint_path: Any, map_location: Any = None, *, weights_only: bool | None = True, **options: Any
    ) -> Self:
        """This data module with a checkpoint's options; see `datamodules.stored.restored`."""
        require_weights_only(weights_only)
        return restored(cls, checkpoint_path, **options)

    def _save_plain_hyperparameters(self) -> None:
        """Save the arguments as plain values: checkpoints are loaded with weights_only=True.

        logger=False, because Lightning refuses to log two different values of one name (the machine has a
        seed and a batch size of its own).
        """
        self.save_hyperparameters(logger=False)
        plain = {name: plain_value(value) for name, value in self.hparams.items()}
        dropped = [name for name, value in plain.items() if value is NotImplemented]
        self.save_hyperparameters(plain, ignore=dropped, logger=False)


def _as_targets(y: Tensor) -> Tensor:
    """Numbers as float32, shape (n, c)."""
    return y.reshape(len(y), -1).to(torch.float32)
