"""Faults in the scale and origin of features, in labels, and in what is refused where arrays come in."""

from mutants import Mutant

ENCODING = "tests/test_encoding.py"

MUTANTS = [
    Mutant(
        "values are scaled by their own dtype",
        "kl/encoding.py",
        "if (rows.dtype == torch.uint8) != (self.dtype == ",
        "if (rows.dtype == torch.float16) and (self.dtype == ",
        f"{ENCODING} -k same_features_in_every_dtype",
    ),
    Mutant(
        "features become float32 before the origin is subtracted",
        "kl/encoding.py",
        "exact = part.double() - origin if",
        "exact = part.float().double() - origin if",
        f"{ENCODING} -k 'median_of_the_training_rows'",
    ),
    Mutant(
        "features have no origin",
        "kl/encoding.py",
        "origin=tuple(origin) if columns and shift else ()",
        "origin=()",
        f"{ENCODING} -k near_0",
    ),
    Mutant(
        "the test set has an origin of its own",
        "datamodules/base.py",
        'self.encoding.encode(test[0], "x_test")',
        "FeatureEncoding.fit(test[0]).encode(test[0])",
        f"{ENCODING} -k 'origin or scale'",
    ),
    Mutant(
        "predict does not scale as training did",
        "recipes/predict.py",
        'FeatureEncoding.from_dict(machine.data_info["encoding"])',
        "FeatureEncoding()",
        f"{ENCODING} -k 'predict or near_0'",
    ),
    Mutant(
        "a constant column is shifted to 0",
        "kl/encoding.py",
        "distance.masked_fill(distance == 0, math.nan).nanmedian(dim=0)",
        "distance.median(dim=0)",
        f"{ENCODING} -k stay_as_they_are",
    ),
    Mutant(
        "what is missing hides that a column lies far from 0",
        "kl/encoding.py",
        ".nanmedian(dim=0).values",
        ".nanmean(dim=0)",
        f"{ENCODING} -k missing",
    ),
    Mutant(
        "columns of a kernel that is not shift-invariant are shifted",
        "datamodules/base.py",
        "shift = self.shift and self.augmentation is None",
        "shift = self.augmentation is None",
        f"{ENCODING} -k told_of_the_origin",
    ),
    Mutant(
        "pixels that are shifted in get an edge",
        "datamodules/base.py",
        "shift = self.shift and self.augmentation is None",
        "shift = self.shift",
        f"{ENCODING} -k augmented",
    ),
    Mutant(
        "pieces of a stream are not encoded like its sample",
        "datamodules/stream.py",
        'self.encoding.encode(pixels, f"x in {piece.path}", quiet=True)',
        "FeatureEncoding.fit(pixels).encode(pixels)",
        f"{ENCODING} -k streams",
    ),
    Mutant(
        "centres of a file are not encoded like the data",
        "recipes/build.py",
        "samples, datamodule.encoding)",
        "samples, type(datamodule.encoding)())",
        f"{ENCODING} -k centers",
    ),
    Mutant(
        "fifths are taken for pixels",
        "kl/pixels.py",
        "math.gcd(LEVELS, *levels) == 1",
        "levels",
        f"{ENCODING} -k refused",
    ),
    Mutant(
        "0..15 and 0..255 are taken for one scale",
        "kl/encoding.py",
        "(levels <= self.levels or self.levels > LEVELS // 2)",
        "True",
        f"{ENCODING} -k refused",
    ),
    Mutant(
        "a value beyond float32 becomes infinite",
        "kl/encoding.py",
        "parts[-1].isinf() & part.isfinite()",
        "parts[-1].isnan() & part.isfinite()",
        f"{ENCODING} -k beyond",
    ),
    Mutant(
        "values become 0 unsaid",
        "kl/encoding.py",
        "if vanished.any() and not quiet:",
        "if False:",
        f"{ENCODING} -k below",
    ),
    Mutant(
        "rows become equal unsaid",
        "kl/encoding.py",
        "lost = len(before[0]) - len(after[0])",
        "lost = 0",
        f"{ENCODING} -k become_equal",
    ),
    Mutant(
        "a run goes on with another origin",
        "datamodules/base.py",
        'if state_dict["encoding"] != self.encoding.to_dict():',
        "if False:",
        f"{ENCODING} -k go_on",
    ),
]
