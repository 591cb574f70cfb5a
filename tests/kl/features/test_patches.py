"""Patch features against loops over positions, image by image to the bit, and what is refused."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from small_patches import ENCODINGS, pictures, small

import kl
import kl.rows.int8
from kl import CheckpointError, InputError, MemoryBudgetError, Patches, Rows
from kl.features.patch_cells import Cells
from kl.features.patch_dictionary import (
    calibrate,
    covariance,
    draw,
    spherical_kmeans,
    to_integers,
    unit_rows,
    whitening_matrix,
)
from kl.features.patch_encoding import Encoder
from kl.features.patch_images import patches_at, patches_without_brightness, positions, remove_brightness
from kl.features.patch_responses import PlainResponses

pytestmark = pytest.mark.numeric

GRAY, COLOR = (1, 11, 9), (3, 8, 10)
TIE = 1e-5  # float32 whitens to about 127 x 1e-7


def whole(values):
    """127 u rounded, and the least distance of a value from a tie."""
    return np.rint(127 * values), float(np.abs(np.abs(127 * values) % 1 - 0.5).min())


def whitened(pixels, size, row, column, w):
    """The unit whitened patch at a place of one image, float64, by loops."""
    values = [
        float(pixels[channel, row + i, column + j])
        for channel in range(len(pixels))
        for i in range(size)
        for j in range(size)
    ]
    if min(values) == max(values):
        return np.zeros(len(values))
    mean = math.fsum(values) / len(values)
    found = w @ np.array([value - mean for value in values])
    return found / math.sqrt(math.fsum(found**2))


def responses(patches, images):
    """Responses by place, whole numbers, for each image; and how near a rounded value came to a tie."""
    learnt, size = patches.learnt, patches.size
    w, dictionary = learnt.whitening.double().numpy(), learnt.patches.double().numpy()
    scale = 255 if images.dtype == torch.uint8 else 1
    found, nearest = [], math.inf
    for image in images:
        pixels = (image if image.ndim == 3 else image[None]).double().numpy() / scale
        height, width = pixels.shape[1] - size + 1, pixels.shape[2] - size + 1
        found.append({})
        for place in np.ndindex(height, width):
            patch, near = whole(whitened(pixels, size, *place, w))
            found[-1][place], nearest = dictionary @ patch, min(nearest, near)
    return found, nearest


def naive_sums(patches, images, pool, step):
    """Encoded responses added by loops over cells, positions and dictionary; and how near a value came to a tie."""
    thresholds, t = patches.learnt.thresholds.double().numpy(), round(126 * patches.threshold)
    maps, nearest = responses(patches, images)
    found = []
    for z in maps:
        height, width = (1 + max(each) for each in zip(*z, strict=True))
        features = []
        for top in range(0, height - pool[0] + 1, step[0]):
            for left in range(0, width - pool[1] + 1, step[1]):
                cell = [z[r, c] for r in range(top, top + pool[0]) for c in range(left, left + pool[1])]
                if patches.encoding == "count":
                    features += list(sum((each > thresholds).astype(int) for each in cell))
                    continue
                steps = [np.rint(each / 128) for each in cell]
                features += list(sum(np.clip(each, t, 127) - t for each in steps))
                if patches.encoding == "rectified":
                    features += list(sum(np.clip(-each, t, 127) - t for each in steps))
        found.append(features)
    return torch.tensor(np.array(found), dtype=torch.float64), nearest


def naive(patches, images, pool, step):
    """Features of images, float64, and how near a value came to a tie before it was rounded."""
    sums, nearest = naive_sums(patches, images, pool, step)
    if patches.encoding == "count":
        return sums, nearest
    scaled = sums * patches.learnt.factors.double()
    return scaled.round().clamp(max=255), min(nearest, float((scaled % 1 - 0.5).abs().min()))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    ("shape", "options", "pool", "step"),
    [
        (GRAY, {}, (4, 3), (4, 3)),  # 8 x 6 positions: 2 x 2 cells side by side
        (COLOR, {}, (3, 4), (2, 3)),  # 5 x 7 positions: cells that share a row and a column
        (COLOR, {"pool": 2, "mirrored": True}, (2, 2), (3, 5)),
        (GRAY, {"pool": 3, "stride": 2, "dictionary": "kmeans"}, (3, 3), (2, 2)),
        (GRAY, {"pool": 1, "stride": 1, "normalize": False, "threshold": 0}, (1, 1), (1, 1)),
    ],
)
def test_features_are_those_of_loops(encoding, shape, options, pool, step):
    patches = small(encoding=encoding, **options).fit(pictures(shape=shape))
    images = pictures(3, shape, seed=1)
    found, (expected, nearest) = patches.transform(images), naive(patches, images, pool, step)
    assert nearest > TIE, "the seed leaves a value so near to a tie that rounding decides"
    assert found.dtype == torch.uint8
    assert found.shape == expected.shape == (3, patches.columns)
    assert torch.equal(found.double(), expected)
    assert found.max() > 0


@pytest.mark.parametrize("encoding", ENCODINGS[1:])
@pytest.mark.parametrize("mirrored", [False, True])
def test_columns_are_in_steps_of_a_20th_of_their_standard_deviation(encoding, mirrored):
    images = pictures(6)
    patches = small(encoding=encoding, mirrored=mirrored, threshold=0.3).fit(images)
    sums, _ = naive_sums(patches, images, (3, 4), (2, 3))
    if mirrored:
        sums = torch.cat([sums, naive_sums(patches, images.flip(3), (3, 4), (2, 3))[0]])
    deviation = sums.std(dim=0, correction=0)
    seen = deviation > 0
    assert torch.equal(patches.learnt.factors[~seen], torch.zeros(int((~seen).sum())))
    torch.testing.assert_close(
        patches.learnt.factors[seen].double(), 20 / deviation[seen], rtol=2e-3, atol=0
    )  # a tie may be near


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("shape", [GRAY, COLOR, (1, 40, 42)])  # the last has two bands of positions
def test_images_alone_have_the_same_bits(encoding, shape):
    images = pictures(11, shape)
    patches = small(encoding=encoding, count=30, pool=3, stride=3).fit(images)
    together = patches.transform(images)
    for size in (1, 2, 3, 7):
        assert torch.equal(torch.cat([patches.transform(part) for part in images.split(size)]), together)
    shuffled = torch.randperm(11, generator=torch.Generator().manual_seed(0))
    assert torch.equal(patches.transform(images[shuffled]), together[shuffled])
    assert torch.equal(patches.transform(images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)), together)


@pytest.mark.parametrize("encoding", ENCODINGS[1:])
def test_two_bands_are_those_of_loops(encoding):
    patches = small(encoding=encoding, count=2, size=2, pool=37).fit(pictures(2, (1, 38, 40)))
    images = pictures(1, (1, 38, 40), seed=3)
    expected, _ = naive(patches, images, (37, 37), (1, 2))  # 37 x 39 positions: two cells side by side
    torch.testing.assert_close(patches.transform(images).double(), expected, atol=1, rtol=0)  # a tie may be near


@pytest.mark.parametrize("threshold", [0.1, 0.9])
def test_sums_over_large_cells_are_exact(threshold):
    """A cell of 394 x 394 positions, in many bands."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (1, 1, 400, 400), generator=generator).to(torch.uint8)
    patches = small(count=3, size=4, encoding="rectified", pool=394, stride=1, threshold=threshold).fit(images)
    encoder = Encoder(patches.learnt, patches._cells((1, 400, 400)), patches)
    units = encoder._units(images.float().div(255))[0]
    z = units[:, :16].double() @ patches.learnt.patches.double().T
    maps, t = z.view(397, 397, 3).div(128).round().clamp(-127, 127), round(126 * threshold)
    expected = [
        (sign * maps[i : i + 394, j : j + 394] - t).clamp(min=0).sum(dim=(0, 1))
        for i in range(4)
        for j in range(4)
        for sign in (1, -1)
    ]
    assert torch.equal(encoder.pooled(images.float().div(255))[0], torch.cat(expected))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_memory_changes_batches_and_no_result(encoding):
    images = pictures(200, dtype=torch.float64)
    patches = small(encoding=encoding).fit(images)
    found, lines = {}, {}
    for memory in ("1GB", "2MB"):
        lines[memory] = []
        found[memory] = Patches.from_state(patches.state_dict(), memory).transform(images, lines[memory].append)
    assert lines["1GB"] == ["patches of 200 of 200 images, about 0.0 s left"]
    assert len(lines["2MB"]) >= 2
    assert torch.equal(found["1GB"], found["2MB"])


def test_memory_limits_are_kept_or_named():
    patches = small().fit(pictures())
    with pytest.raises(
        MemoryBudgetError, match=r"the patches of 64 images at a time need .*more than the budget of 1 KB"
    ):
        Patches.from_state(patches.state_dict(), "1KB").transform(pictures())
    with pytest.raises(MemoryBudgetError, match=r"learning a dictionary of 7 patches needs .*: raise memory"):
        small(memory="10KB").fit(pictures())


def test_dtypes_agree_and_inputs_stay():
    images = pictures()
    patches = small(encoding="rectified").fit(images)
    found = patches.transform(images)
    floats = images.float() / 255
    before = floats.clone()
    assert torch.equal(patches.transform(floats), found)
    assert torch.equal(small(encoding="rectified").fit(floats).transform(floats), found)
    assert torch.equal(floats, before)
    gray = pictures(shape=GRAY)
    alike = small().fit(gray[:, 0])
    assert torch.equal(alike.transform(gray), alike.transform(gray[:, 0]))


def test_the_seed_decides():
    images = pictures()
    first, again, other = (small(seed=seed).fit(images) for seed in (0, 0, 1))
    assert torch.equal(first.learnt.patches, again.learnt.patches)
    assert torch.equal(first.transform(images), again.transform(images))
    assert not torch.equal(first.learnt.patches, other.learnt.patches)


def test_counts_take_the_exact_path_of_the_kernels():
    images = pictures(20)
    rows = Rows.of(small(count=30).fit(images).transform(images).float())
    assert rows.codes is not None or not kl.rows.int8.int8_is_exact(rows.data.device)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_mirror_image_has_the_same_features_in_other_columns(encoding):
    images = pictures(30)
    patches = small(encoding=encoding, mirrored=True).fit(images)
    shape = (30, 2, 2, -1, 2, 7)  # rows and columns of cells, signs, the dictionary and its mirror images
    plain = patches.transform(images).view(shape)
    turned = patches.transform(images.flip(-1)).view(shape)
    expected = plain.flip(2).flip(4)
    # Rounding may decide a value that is very near to a tie.
    assert (turned != expected).float().mean() < 1e-2
    assert (turned.int() - expected.int()).abs().max() <= 2
    assert (turned != plain).float().mean() > 0.1


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_constant_image_has_no_responses(encoding):
    patches = small(encoding=encoding).fit(pictures())
    zero = torch.from_numpy(
        np.tile((patches.learnt.thresholds < 0).numpy() if encoding == "count" else np.zeros(patches.columns // 4), 4)
    )
    for value in (0.0, 0.1, 1 / 3, 1.0, 1e4):
        found = patches.transform(torch.full((1, *COLOR), value))
        side = patches._cells(COLOR).size if encoding == "count" else 1
        assert torch.equal(found[0].double(), zero.double() * side)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_contrast_that_float32_cannot_hold_has_no_responses(encoding, monkeypatch):
    """Blobs on black, whose tails end below 1e-38, have the features of blobs that end at 1e-22."""
    side, generator = torch.arange(20.0), torch.Generator().manual_seed(0)
    places = 5 + 10 * torch.rand(8, 2, generator=generator)
    rows, columns = ((-((side - places[:, axis, None]) ** 2) / 1.5).exp() for axis in (0, 1))
    images = (rows[:, :, None] * columns[:, None, :])[:, None]
    assert images[images > 0].min() < 1e-37
    patches = small(encoding=encoding, threshold=0.1).fit(images)
    found = patches.transform(images)
    assert found.any()
    with monkeypatch.context() as patch:
        patch.setattr("kl.features.patch_encoding.responses_on", lambda device: PlainResponses)
        assert torch.equal(patches.transform(images), found)
    ended = patches.transform(images.where(images > 1e-22, 0))
    assert (ended.int() - found.int()).abs().max() <= 1  # a tie may be near
    if encoding != "count":
        assert not patches.transform(images * 1e-25).any()


def test_a_band_of_positions_without_a_cell():
    """Cells of 3 x 3 positions at rows 0, 33 and 66 of 86 x 66 positions: a band of 1024 holds 15 or 16 rows."""
    images = pictures(3, (1, 90, 70))
    patches = small(count=2, size=5, encoding="soft", pool=3, stride=33).fit(images)
    expected, _ = naive(patches, images[:1], (3, 3), (33, 33))
    torch.testing.assert_close(patches.transform(images[:1]).double(), expected, atol=1, rtol=0)  # a tie may be near


def test_images_that_require_a_gradient_have_features_without():
    images = pictures(3, dtype=torch.float32)
    patches = small().fit(images)
    expected = patches.transform(images)
    assert torch.equal(patches.transform(images.requires_grad_()), expected)


def every_patch(images, size):
    height, width = positions(*images.shape[2:], size)
    return remove_brightness(patches_at(images, torch.arange(len(images) * height * width), size).T, True).T


@pytest.mark.parametrize("shape", [COLOR, GRAY])
def test_patches_are_read_in_the_same_order_everywhere(shape):
    images = pictures(2, shape)
    height, width = positions(*shape[1:], 3)
    found = torch.empty(2, shape[0], 3, 3, height, width)
    seen = patches_without_brightness(images.float() / 255, 3, found)
    one_by_one = patches_at(images, torch.arange(2 * height * width), 3)
    assert torch.equal(seen.flatten(), one_by_one.amax(dim=1) > one_by_one.amin(dim=1))
    assert not seen.all()
    expected = one_by_one - one_by_one.double().mean(dim=1, keepdim=True)
    torch.testing.assert_close(found.view(2, -1, height * width).mT.flatten(0, 1).double(), expected, rtol=0, atol=1e-7)


def test_whitened_patches_have_the_identity_as_covariance():
    patches = every_patch(pictures(30), 4)
    w = whitening_matrix(covariance(patches, None), 1e-9)
    found = covariance(patches.double() @ w, None)
    d = patches.shape[1]
    torch.testing.assert_close(found, torch.eye(d).double() - 1 / d, atol=1e-4, rtol=0)  # constant patches are no part
    kept = whitening_matrix(covariance(patches, None), 1e9)
    torch.testing.assert_close(kept / kept[0, 0], (torch.eye(d).double() - 1 / d) / (1 - 1 / d), atol=1e-6, rtol=0)


def test_a_mirrored_covariance_is_that_of_patches_and_mirror_images():
    patches = every_patch(pictures(4), 4)
    mirror = torch.arange(48).view(3, 4, 4).flip(-1).flatten()
    both = torch.cat([patches, patches[:, mirror]])
    torch.testing.assert_close(covariance(patches, mirror), covariance(both, None))


def test_normalized_patches_have_mean_0_and_variance_near_1():
    patches = every_patch(pictures(5), 4)
    contrast = patches[patches.any(dim=1)]
    assert len(contrast) < len(patches)
    torch.testing.assert_close(contrast.mean(dim=1), torch.zeros(len(contrast)), atol=1e-5, rtol=0)
    variance = contrast.square().mean(dim=1)
    assert 0.5 < variance.min() <= variance.max() < 1


def test_kmeans_never_gets_worse_and_finds_clusters():
    generator = torch.Generator().manual_seed(0)
    truth = torch.eye(6)[:4]
    points = truth.repeat(50, 1) + 0.05 * torch.randn(200, 6, generator=generator)
    points = unit_rows(points)
    centers, objective = spherical_kmeans(points, points[:4], 5)
    assert all(after <= before + 1e-6 for before, after in pairwise(objective))
    assert objective[-1] < 0.01
    torch.testing.assert_close(centers.norm(dim=1), torch.ones(4))
    far = torch.cat([points[:4], -points[:1]])  # no point is nearest to the last
    assert torch.equal(spherical_kmeans(points, far, 2)[0][4], far[4])


def test_kmeans_of_images():
    images, lines = pictures(30), []
    patches = small(dictionary="kmeans", count=20).fit(images, lines.append)
    assert "k-means: round 3 of 10" in lines
    sample = unit_rows(every_patch(images, 4) @ patches.learnt.whitening)
    sample = sample[sample.any(dim=1)]
    start = small(count=20).fit(images).learnt.patches

    def loss(centers):
        return 1 - float((sample @ centers.T / 127).amax(dim=1).mean())

    assert loss(patches.learnt.patches) < loss(start) - 0.01


@pytest.mark.parametrize("mirrored", [False, True])
def test_thresholds_are_exceeded_by_the_share_that_is_active(mirrored):
    images = pictures(20)
    patches = small(active=0.4, mirrored=mirrored).fit(images)
    sample = to_integers(unit_rows(every_patch(images, 4) @ patches.learnt.whitening))
    sample = sample[sample.any(dim=1)]
    mirror = torch.arange(48).view(3, 4, 4).flip(-1).flatten()
    sample = torch.cat([sample, sample[:, mirror]]) if mirrored else sample
    share = (sample @ patches.learnt.patches.T > patches.learnt.thresholds).double().mean(dim=0)
    torch.testing.assert_close(share, torch.full_like(share, 0.4), atol=2 / len(sample), rtol=0)


def test_thresholds_of_few_patches():
    ones = torch.ones(1, 1)
    assert calibrate(ones, torch.tensor([[5.0]]), 0.3) == 5
    assert calibrate(ones, torch.tensor([[50.0], [25.0]]), 0.01) == 37


def test_draws_have_no_repeats():
    for total, count in ((10, 30), (1000, 300), (10**9, 300)):
        found = draw(total, count, torch.Generator().manual_seed(0))
        assert len(found.unique()) == len(found) == min(total, count)
        assert found.max() < total


def test_cells():
    def starts(positions, pool, stride):
        return [list(each) for each in Cells.of(positions, pool, stride).starts]

    assert starts((23, 27), None, None) == [[0, 11], [0, 13]]
    assert starts((23, 23), 12, None) == [[0, 11], [0, 11]]
    assert starts((23, 23), 7, 8) == [[0, 8, 16], [0, 8, 16]]
    assert starts((1, 1), None, None) == [[0], [0]]
    assert Cells.of((23, 27), None, None).sides == (12, 14)
    cells = Cells.of((3, 3), 2, 1)
    numbers, matrix = cells.within(slice(0, 9))
    assert numbers == slice(0, 4)
    assert matrix.tolist() == [
        [1, 1, 0, 1, 1, 0, 0, 0, 0],
        [0, 1, 1, 0, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 1, 0, 1, 1, 0],
        [0, 0, 0, 0, 1, 1, 0, 1, 1],
    ]
    for places in (slice(0, 2), slice(2, 7), slice(7, 9)):
        numbers, part = cells.within(places)
        assert torch.equal(part, matrix[numbers, places])
        assert matrix[:, places].sum() == part.sum()
    numbers, part = Cells.of((5, 5), 1, 4).within(slice(7, 9))
    assert (numbers, part.shape) == (slice(0, 0), (0, 2))
    assert cells.mirrored()
    assert not Cells.of((4, 4), 3, 2).mirrored()


@pytest.mark.parametrize("options", [{}, {"encoding": "rectified", "pool": 2, "stride": 1, "mirrored": True}])
def test_state_gives_the_same_bits(options, tmp_path):
    images = pictures()
    patches = small(seed=3, **options).fit(images)
    torch.save(patches.state_dict(), tmp_path / "patches.pt")
    loaded = Patches.from_state(torch.load(tmp_path / "patches.pt", weights_only=True))
    assert loaded.columns == patches.columns
    assert loaded.image == COLOR
    assert torch.equal(loaded.transform(images), patches.transform(images))


def tensors(**changes):
    whole = {
        "whitening": torch.eye(4),
        "patches": 127 * torch.eye(4)[:2],
        "thresholds": torch.zeros(2),
        "factors": torch.zeros(0),
    }
    return {"options": {"count": 2, "size": 2, "encoding": "count"}, "image": [1, 5, 5], **whole, **changes}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": None}, "its patches must have options of type dict; got None"),
        ({"options": {"colour": 1}}, "its options of patches must be among count, size"),
        ({"options": {"count": "2"}}, "its options of patches must have count of type int; got '2'"),
        ({"options": {"count": 0}}, "count must be a whole number, 1 or above; got 0"),
        (
            {"options": {"count": 3, "size": 2, "encoding": "count"}},
            r"the patches' patches must be float32 of shape \(3, 4\)",
        ),
        (
            {"options": {"count": 2, "size": 2, "encoding": "count", "mirrored": True}},
            r"of shape \(4, 4\); got torch.float32 of shape",
        ),
        ({"options": {"count": 2, "size": 2, "pool": 5}}, "pool must be at most the 4 positions"),
        ({"image": [5, 5]}, r"the patches' image must be channels, height and width, at least .*; got \[5, 5\]"),
        ({"image": [0, 5, 5]}, "the patches' image must be channels, height and width"),
        ({"image": [1, 1, 5]}, "at least as large as a patch of 2 pixels; got .1, 1, 5."),
        ({"image": [1.5, 5, 5]}, "its patches must have image of type"),
        ({"image": [2, 5, 5]}, r"the patches' whitening must be float32 of shape \(8, 8\)"),
        ({"whitening": None}, "its patches must have whitening of type Tensor; got None"),
        ({"whitening": torch.full((4, 4), torch.nan)}, "its 'whitening' must be finite"),
        ({"whitening": torch.eye(4).double()}, "the patches' whitening must be float32"),
        ({"patches": torch.zeros(2, 4)}, "the patches' dictionary must have rows of whole numbers and norm 127"),
        ({"patches": 127 * torch.eye(4)[:2] + 0.5}, "the patches' dictionary must have rows of whole numbers"),
        ({"factors": torch.zeros(8)}, r"the patches' factors must be float32 of shape \(0,\)"),
        ({"options": {"count": 2, "size": 2, "encoding": "soft"}}, r"the patches' factors must be .*shape \(8,\)"),
        (
            {"options": {"count": 2, "size": 2, "encoding": "soft"}, "factors": -torch.ones(8)},
            "the patches' factors must be 0 or above",
        ),
        ({"patches": torch.tensor([[1.0, 0, 0, 0]]).expand(2, 4)}, "its 'patches' must hold all values of its shape"),
        ({"thresholds": torch.zeros(3)}, "the patches' thresholds must be float32 of shape"),
        ({"thresholds": torch.zeros(2, 1)}, "its thresholds must have 1 dimensions"),
    ],
)
def test_damaged_files(change, message):
    Patches.from_state(tensors())
    with pytest.raises(InputError, match=message):
        Patches.from_state(tensors(**change))


def test_a_file_of_endless_images_costs_nothing():
    endless = {"count": 2, "size": 2, "encoding": "count", "pool": 1, "stride": 1}
    assert Patches.from_state(tensors(options=endless, image=[1, 10**9, 10**9])).columns > 10**18


def test_files_of_others():
    for state in (None, {}, {"options": {}}, []):
        with pytest.raises(CheckpointError, match="its patches"):
            Patches.from_state(state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "count must be a whole number, 1 or above; got 0"),
        ({"size": 2.5}, "size must be a whole number, 1 or above; got 2.5"),
        ({"size": 1}, "size must be at least 2 pixels, because a patch of one pixel has no contrast; got 1"),
        ({"whitening": 0}, "whitening must be a finite number above 0; got 0: try 0.1"),
        ({"dictionary": "pca"}, "dictionary must be one of random, kmeans; got 'pca'"),
        ({"encoding": "binary"}, "encoding must be one of count, soft, rectified; got 'binary'"),
        ({"active": 0}, "active must be a finite number above 0; got 0: try 0.3"),
        ({"active": 1}, "active must be a share of the responses below 1; got 1.0: try 0.3"),
        ({"threshold": -0.1}, "threshold must be a number from 0 to below 1; got -0.1: try 0.15"),
        ({"threshold": float("nan")}, "threshold must be a number from 0 to below 1; got nan"),
        ({"threshold": 1}, "threshold must be a number from 0 to below 1; got 1"),
        ({"pool": 0}, "pool must be a whole number of at least 1, or left out .* for half of the positions; got 0"),
        ({"stride": -1}, "stride must be a whole number of at least 1, or left out \\(None\\) for 2 x 2 cells; got -1"),
        ({"mirrored": 1}, "mirrored must be True or False; got 1"),
        ({"normalize": "no"}, "normalize must be True or False; got 'no'"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"memory": "much"}, "memory must be auto, a number of bytes"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(InputError, match=message):
        Patches(**options)


NAN = torch.rand(3, *COLOR)
NAN[1, 0, 2, 3] = torch.nan


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (None, r"images must be a dense tensor of shape \(n, channels, height, width\), .*; got NoneType"),
        (torch.rand(3, 48), r"got shape \(3, 48\): rows of pixels need rows.reshape"),
        (torch.rand(3, 8, 10).to_sparse(), "images must be a dense tensor"),
        (torch.ones(3, *COLOR, dtype=torch.int64), "images must be uint8 or floats; got torch.int64: use images.to"),
        (torch.empty(0, *COLOR), r"images must hold one image with one channel at least; got shape \(0, 3, 8, 10\)"),
        (torch.rand(3, 3, 3, 10), "images must be at least as large as a patch, 4 x 4 pixels; got 3 x 10: give larger"),
        (NAN, "images must hold finite numbers of at most 1e[+]15; image 1 does not: remove or mend it"),
        (torch.full((2, *COLOR), 1e20), "images must hold finite numbers of at most 1e[+]15; image 0 does not"),
    ],
)
def test_images_that_are_none(images, message):
    with pytest.raises(InputError, match=message):
        small().fit(images)
    patches = small().fit(pictures())
    with pytest.raises(InputError, match=message):
        patches.transform(images)


def test_images_that_give_no_dictionary():
    for constant in (torch.zeros(3, *COLOR), torch.full((3, *COLOR), 0.1)):
        with pytest.raises(InputError, match=r"0 of the 105 drawn \(all patches are constant\); got 7: give more or"):
            small().fit(constant)
    half = torch.zeros(3, *COLOR)
    half[0, 0, 0, 0] = 1
    with pytest.raises(InputError, match=r"patches with any contrast, 1 of the 105 drawn \(others are constant\)"):
        small().fit(half)
    with pytest.raises(InputError, match="count must be at most the number of patches, 35 in 1 images; got 36"):
        small(count=36).fit(pictures(1))
    assert small(count=35).fit(pictures(2)[1:]).transform(pictures(1)).shape == (1, 140)
    with pytest.raises(
        InputError, match=r"pool must be at most the 5 positions of a patch along the shorter side .* 6"
    ):
        small(pool=6).fit(pictures())
    with pytest.raises(InputError, match=r"pool must be so small that a cell has at most 255 positions.* of 18 x 18"):
        small().fit(pictures(1, (1, 38, 38)))


def test_images_unlike_those_of_fit():
    patches = small().fit(pictures())
    for shape, called in (((1, 8, 10), "1 channel of 8 x 10"), ((3, 10, 8), "3 channels of 10 x 8")):
        with pytest.raises(InputError, match=f"must have 3 channels of 8 x 10 pixels, as those of fit; got {called}"):
            patches.transform(torch.rand(2, *shape))


def test_fit_comes_first():
    for use in (lambda: small().transform(pictures()), small().state_dict, lambda: small().columns):
        with pytest.raises(InputError, match="patches must be learnt first: call fit with training images"):
            use()


def test_rows_of_pixels_are_images():
    images = torch.rand(6, 3, 7, 8, generator=torch.Generator().manual_seed(0))
    patches = kl.Patches(count=5, size=3).fit(images)
    found = patches.transform_rows(images.flatten(1))
    torch.testing.assert_close(found, patches.transform(images).float(), rtol=0, atol=0)
    with pytest.raises(InputError, match=r"rows must have 168 pixels, those of 3 channels of 7 x 8 pixels; got shape"):
        patches.transform_rows(images[:, :1].flatten(1))
