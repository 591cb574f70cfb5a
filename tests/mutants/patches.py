"""Faults in features of image patches."""

from mutants import Mutant

PATCHES = "tests/kl/features/test_patches.py"

MUTANTS = [
    Mutant(
        "a block of images is as large as what is given",
        "kl/features/patch_encoding.py",
        "self.images = 1 if device.type",
        "self.images = 4 if device.type",
        f"{PATCHES} -k 'same_bits or memory'",
    ),
    Mutant(
        "the second band of positions is left out",
        "kl/features/patch_encoding.py",
        "pooled[sign].add_(sums)",
        "pass",
        f"{PATCHES} -k two_bands",
    ),
    Mutant(
        "a constant patch keeps its rounding, which whitening blows up",
        "kl/features/patch_images.py",
        "seen = variance > FLAT * (variance + mean.square())",
        "seen = variance >= 0",
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
]
