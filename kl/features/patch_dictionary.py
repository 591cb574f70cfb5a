"""The dictionary of patches: drawn from training images, whitened, perhaps clustered, with a threshold for each.

Whitened patches of norm 1 are rounded to whole numbers of 8 bits, k = round(127 u), because their inner products are
then whole numbers below 2^24, which int8, bfloat16 and float32 products compute exactly, on every processor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kl.errors import InputError
from kl.features.patch_images import patches_at, positions, remove_brightness
from kl.features.patch_options import PatchOptions
from kl.features.patch_responses import UNIT
from kl.machines.checkpoints import require_tensors, require_values
from kl.rows.workspace import spans

SAMPLE, SAMPLE_VALUES = 50_000, 2**23  # patches that are drawn, and their values, at most, but always
PER_ENTRY = 4  # patches for each one of the dictionary
CALIBRATION = 8192  # patches on which the thresholds are calibrated, at most
ROUNDS = 10  # of k-means
CHUNK = 4096  # patches, or rows of responses, at a time; fixed, so that sums do not depend on the memory
BLOCK = 256  # patches of the dictionary at a time
LARGEST_WHITENING = 1e12  # beyond it responses could overflow; eps and pixels give far less
LEAST = 1e-15  # a norm below it is 0, because float32 would lose its squares
ROUNDING = 0.51  # times sqrt(d): how far rounding may take the norm of a patch from UNIT
REMEDY = "the file is damaged or another's; fit again"


@dataclass(frozen=True, eq=False)
class PatchDictionary:
    """What is learnt from training images. A patch p, without its brightness, has the responses <k(W p), D_k>.

    k(w) is `to_integers` of w / |w|.
    """

    whitening: Tensor  # W, symmetric, float32, shape: (d, d)
    patches: Tensor  # D, whitened patches, whole numbers of norm about 127, float32, shape: (m, d)
    thresholds: Tensor  # t_k, exceeded by a share `active` of the responses, float32, shape: (m,)
    factors: Tensor  # by which pooled responses are multiplied, float32, shape: (columns,); empty for "count"

    def to(self, device: torch.device) -> PatchDictionary:
        """The same on a device."""
        return PatchDictionary(**{name: each.to(device) for name, each in vars(self).items()})

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors, on the CPU."""
        return {name: each.cpu() for name, each in vars(self).items()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], d: int, m: int, factors: int) -> PatchDictionary:
        """The dictionary of `state_dict`, which may come from a file and is checked.

        Args:
            state: the tensors, perhaps with other values.
            d: values of a patch.
            m: patches of the dictionary, with mirror images.
            factors: the number of factors.

        Raises:
            InputError: a tensor is missing, is not of its shape, or is not finite, or a patch is none of norm 127.
        """
        shapes = {"whitening": (d, d), "patches": (m, d), "thresholds": (m,), "factors": (factors,)}
        require_values("patches", state, dict.fromkeys(shapes, Tensor), REMEDY)
        tensors = {name: state[name] for name in shapes}
        require_tensors(tensors, {name: len(shape) for name, shape in shapes.items()})
        for name, shape in shapes.items():
            if tensors[name].shape != shape or tensors[name].dtype != torch.float32:
                raise InputError(
                    f"the patches' {name} must be float32 of shape {shape}; got {tensors[name].dtype} of shape "
                    f"{tuple(tensors[name].shape)}: {REMEDY}"
                )
        if float(tensors["whitening"].abs().max()) > LARGEST_WHITENING:
            raise InputError(f"the patches' whitening must be at most {LARGEST_WHITENING:.0e}: {REMEDY}")
        patches = tensors["patches"]
        if bool(((patches.norm(dim=1) - UNIT).abs() > ROUNDING * math.sqrt(d)).any() or (patches.frac() != 0).any()):
            raise InputError(f"the patches' dictionary must have rows of whole numbers and norm {UNIT}: {REMEDY}")
        if bool((tensors["factors"] < 0).any()):
            raise InputError(f"the patches' factors must be 0 or above: {REMEDY}")
        return cls(**tensors)


def sample_size(count: int, d: int, places: int) -> int:
    """Patches that are drawn of all places, for a dictionary of `count` patches of d values."""
    return min(places, max(PER_ENTRY * count, min(SAMPLE, SAMPLE_VALUES // d)))


def learning_memory(count: int, d: int, places: int) -> int:
    """Bytes that `learn_dictionary` takes beside the images, most of them for the drawn patches or their responses."""
    drawn = sample_size(count, d, places)
    patches = 4 * d * (2 * drawn + 6 * min(CHUNK, drawn) + 4 * count + 6 * d)
    return patches + 20 * min(BLOCK, count) * 2 * min(CALIBRATION, drawn)


def learn_dictionary(
    images: Tensor,  # shape: (n, channels, height, width)
    options: PatchOptions,
    say: Callable[[str], object],
) -> PatchDictionary:
    """Draw patches, and learn the whitening, the dictionary and the thresholds from those that are not constant.

    The factors are left empty, because they need the features of whole images.

    Args:
        images: the training images.
        options: the options.
        say: is called with a line for each stage.

    Raises:
        InputError: there are fewer patches than the dictionary is to have.
    """
    generator = torch.Generator().manual_seed(options.seed)
    count, size = options.count, options.size
    height, width = positions(images.shape[2], images.shape[3], size)
    places = len(images) * height * width
    d = images.shape[1] * size**2
    say("drawing patches")
    chosen = draw(places, sample_size(count, d, places), generator).to(images.device)
    sample = torch.cat([patches_at(images, chosen[part], size) for part in spans(len(chosen), CHUNK)])
    remove_brightness(sample.T, options.normalize)
    sample = sample[sample.any(dim=1)]
    if len(sample) < count:
        reason = "all patches are constant" if not len(sample) else "others are constant"
        raise InputError(
            f"count must be at most the number of patches with any contrast, {len(sample)} of the {len(chosen)} drawn "
            f"({reason}); got {count}: give more or other images, or a smaller count="
        )
    mirror = torch.arange(d, device=images.device).view(-1, size, size).flip(-1).flatten()
    say("whitening patches")
    w = whitening_matrix(covariance(sample, mirror if options.mirrored else None), options.whitening).float()
    for part in spans(len(sample), CHUNK):
        sample[part] = unit_rows(sample[part] @ w)
    patches = sample[:count].clone()
    if options.dictionary == "kmeans":
        patches, _ = spherical_kmeans(sample, patches, ROUNDS, say)
    say("calibrating thresholds")
    known, patches = to_integers(sample[:CALIBRATION]), to_integers(patches)
    thresholds = calibrate(patches, torch.cat([known, known[:, mirror]]) if options.mirrored else known, options.active)
    if options.mirrored:
        patches, thresholds = torch.cat([patches, patches[:, mirror]]), thresholds.repeat(2)
    return PatchDictionary(w, patches, thresholds, thresholds.new_empty(0))


def draw(total: int, count: int, generator: torch.Generator) -> Tensor:
    """`count` of the numbers 0..total-1 without repeats, in random order; a few less if total is large."""
    if total <= 4 * count:
        return torch.randperm(total, generator=generator)[:count]
    found = torch.randint(total, (count,), generator=generator).unique()  # a permutation of all would fill the memory
    return found[torch.randperm(len(found), generator=generator)]


def covariance(
    patches: Tensor,  # without their brightness, shape: (k, d)
    mirror: Tensor | None,  # order of the pixels of a mirror image, shape: (d,)
) -> Tensor:
    """The mean of p p^T, float64, shape (d, d); with `mirror`, over the patches and their mirror images.

    The mean patch is not subtracted: each patch's own mean was, and a constant patch is to stay 0.
    """
    total = patches.new_zeros(patches.shape[1], patches.shape[1], dtype=torch.float64)
    for part in spans(len(patches), CHUNK):
        found = patches[part].double()
        total.addmm_(found.T, found)
    total /= len(patches)
    return total if mirror is None else (total + total[mirror][:, mirror]) / 2


def whitening_matrix(
    covariance: Tensor,  # float64, shape: (d, d)
    eps: float,
) -> Tensor:
    """W = V (Lambda + eps mean(Lambda))^(-1/2) V^T without its part along constant patches, float64, shape (d, d)."""
    values, vectors = torch.linalg.eigh(covariance)
    values = values.clamp(min=0)
    root = (vectors * (values + eps * values.mean()).rsqrt()) @ vectors.T
    root -= root.mean(dim=0)
    return root - root.mean(dim=1, keepdim=True)


def unit_rows(
    w: Tensor,  # shape: (..., k, d)
) -> Tensor:
    """Divide each row by its norm, in place; a row of zeros stays."""
    return w.div_(w.square().sum(dim=-1, keepdim=True).sqrt_().clamp_(min=LEAST))


def to_integers(
    u: Tensor,  # of norm 1
) -> Tensor:
    """round(127 u), whole numbers from -127 to 127, float32, of u's shape."""
    return (u * UNIT).round_()


def spherical_kmeans(
    patches: Tensor,  # of norm 1, shape: (k, d)
    centers: Tensor,  # of norm 1, shape: (m, d)
    rounds: int,
    say: Callable[[str], object] = lambda line: None,
) -> tuple[Tensor, list[float]]:
    """k-means by angles: a patch goes to the centre of the largest inner product, a centre to its patches' direction.

    A centre without patches stays where it is.

    Returns:
        The centres, of norm 1, shape (m, d), and the mean of 1 - <patch, centre> before each round and after the last,
        which never rises but for rounding.
    """
    objective = []
    for number in range(rounds + 1):
        say(f"k-means: round {number} of {rounds}")
        sums, reached = torch.zeros_like(centers, dtype=torch.float64), 0.0
        for part in spans(len(patches), CHUNK):
            best, nearest = _nearest(patches[part], centers)
            sums.index_add_(0, nearest, patches[part].double())
            reached += float(best.double().sum())
        objective.append(1 - reached / len(patches))
        if number < rounds:
            found = unit_rows(sums)
            centers = torch.where(found.any(dim=1, keepdim=True), found.to(centers), centers)
    return centers, objective


def _nearest(patches: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """The largest inner product of each patch with a centre, and which centre it is, shape (k,) each."""
    best = patches.new_full((len(patches),), -torch.inf)
    nearest = torch.zeros(len(patches), dtype=torch.int64, device=patches.device)
    for block in spans(len(centers), BLOCK):
        value, index = (patches @ centers[block].T).max(dim=1)
        nearest = torch.where(value > best, index + block.start, nearest)
        best = torch.maximum(best, value)
    return best, nearest


def calibrate(
    dictionary: Tensor,  # whole numbers, float32, shape: (m, d)
    patches: Tensor,  # whole numbers, float32, shape: (k, d)
    active: float,
) -> Tensor:
    """For each patch of the dictionary a threshold that round(active k) of its responses exceed, shape (m,).

    At least one response does not. Responses that are equal are all above it or all below, so that a few less may
    exceed it. It is a whole number.
    """
    above = min(max(round(active * len(patches)), 1), len(patches) - 1)
    found = []
    for block in spans(len(dictionary), BLOCK):
        ordered = (dictionary[block] @ patches.T).sort(dim=1, descending=True).values
        found.append((ordered[:, max(above - 1, 0)] + ordered[:, min(above, len(patches) - 1)]) / 2)
    return torch.cat(found).floor_()
