"""Faults in features of image patches."""

from mutants import Mutant

PATCHES = "tests/kl/features/test_patches.py"
CACHE = "tests/kl/features/test_patch_cache.py"

MUTANTS = [
    Mutant(
        "patches are not rounded to whole numbers",
        "kl/features/patch_dictionary.py",
        "return (u * UNIT).round_()",
        "return u * UNIT",
        f"{PATCHES} -k 'loops or float_products'",
    ),
    Mutant(
        "the second band of positions is left out",
        "kl/features/patch_encoding.py",
        "total[:, numbers, tile, block] += responses",
        "total[:, numbers, tile, block] = responses",
        f"{PATCHES} -k two_bands",
    ),
    Mutant(
        "the offset of a term is that of one position",
        "kl/features/patch_encoding.py",
        "self._cells.size * term.offset",
        "term.offset",
        f"{PATCHES} -k loops",
    ),
    Mutant(
        "a column and its mirror image have deviations of their own",
        "kl/features/patches.py",
        "if self.mirrored and self._cells(shape).mirrored():",
        "if False:",
        f"{PATCHES} -k 'mirror_image_has or 20th'",
    ),
    Mutant(
        "a constant patch keeps its rounding, which whitening blows up",
        "kl/features/patch_images.py",
        "return (square - mean.square() > FLAT * square).flatten(1)",
        "return (square >= 0).flatten(1)",
        f"{PATCHES} -k 'constant or loops'",
    ),
    Mutant(
        "mirror images have thresholds of the patches alone",
        "kl/features/patch_dictionary.py",
        "torch.cat([known, known[:, mirror]]) if options.mirrored else known",
        "known",
        f"{PATCHES} -k share_that_is_active",
    ),
    Mutant(
        "the whitening of a mirrored dictionary is not symmetric",
        "kl/features/patch_dictionary.py",
        "covariance(sample, mirror if options.mirrored else None)",
        "covariance(sample, None)",
        f"{PATCHES} -k mirror_image_has",
    ),
    Mutant(
        "a centre without patches becomes 0",
        "kl/features/patch_dictionary.py",
        "torch.where(found.any(dim=1, keepdim=True), found.to(centers), centers)",
        "found.to(centers)",
        f"{PATCHES} -k kmeans",
    ),
    Mutant(
        "kept features are believed without their checksum",
        "kl/features/patch_cache.py",
        "if not path.stem.endswith(_checksum(key, array)):",
        "if not path.stem:",
        f"{CACHE} -k damaged_features",
    ),
    Mutant(
        "kept features are found by their images alone",
        "kl/features/patch_cache.py",
        "for tensor in (*(tensors[name] for name in sorted(tensors)), images):",
        "for tensor in (images,):",
        f"{CACHE} -k another_dictionary",
    ),
    Mutant(
        "a dictionary is found by its images alone",
        "kl/features/patch_cache.py",
        'about = f"{VERSION} {what} {sorted(plain.items())} {sorted(tensors)} {images.device.type}"',
        'about = f"{VERSION} {what}"',
        f"{CACHE} -k other_options_do_not_read",
    ),
    Mutant(
        "the pixels of rows held out are trained on",
        "datamodules/base.py",
        "self._pixels = None if self._pixels is None else self._pixels[kept]",
        "self._pixels = self._pixels",
        "tests/datamodules/test_patches.py -k batches_are_of_augmented",
    ),
    Mutant(
        "pieces of a stream are not augmented before they become features",
        "datamodules/stream.py",
        "x = images.augmentation(x, images.image_shape, generator)",
        "images.augmentation(x, images.image_shape, generator)",
        "tests/datamodules/test_patches.py -k pieces_of_a_stream",
    ),
]
