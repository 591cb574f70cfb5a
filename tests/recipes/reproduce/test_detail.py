"""What JPEG took from the images, and the exact limit with noise in its place."""

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from recipes.reproduce.experiments.accuracy import SHARES, Accuracy, detail_sentence, limit_in_doubt, lost_detail
from recipes.reproduce.points.detail import LostDetail, quantisation_steps, with_detail
from recipes.reproduce.points.exact import Exact
from recipes.reproduce.points.sample import Sample, gaussian
from recipes.reproduce.setting import Setting
from recipes.reproduce.sweep.point import Context
from recipes.reproduce.table import sweep_table


def generator():
    return torch.Generator().manual_seed(0)


def test_the_steps_are_those_of_the_standard_at_quality_50():
    steps = 255 * quantisation_steps(50)
    assert steps[0].round().tolist() == [16, 11, 10, 16, 24, 40, 51, 61]  # ITU-T T.81, table K.1, first row
    assert steps[:, 0].round().tolist() == [16, 12, 14, 14, 18, 24, 49, 72]


def test_a_single_coefficient_is_its_cosine_and_within_half_a_step():
    steps = torch.zeros(8, 8)
    steps[2, 1] = 0.2  # vertical frequency 2, horizontal 1
    x = torch.full((50, 32 * 32), 0.5)
    images, rms = with_detail(x, steps, generator())
    i = np.arange(8)
    wave = np.outer(np.cos((2 * i + 1) * 2 * np.pi / 16), np.cos((2 * i + 1) * np.pi / 16)) / 4
    blocks = (images - x).view(50, 4, 8, 4, 8).transpose(2, 3).reshape(-1, 64).double()
    unit = torch.from_numpy(wave).flatten()
    coefficient = blocks @ unit
    assert (blocks - coefficient[:, None] * unit).abs().max() < 1 / 255
    assert coefficient.abs().max() < 0.1 + 2 / 255
    assert coefficient.std() == pytest.approx(0.2 / 12**0.5, rel=0.05)
    assert rms == pytest.approx(0.2 / 12**0.5 / 8, rel=0.05)


def test_images_stay_images_and_no_share_changes_nothing():
    x = (torch.rand(20, 32 * 32, generator=generator()) * 255).round() / 255
    same, rms = with_detail(x, torch.zeros(8, 8), generator())
    assert rms == 0
    assert torch.allclose(same, x, atol=1e-7)
    images, _ = with_detail(x, 10 * quantisation_steps(75), generator())
    assert images.min() == 0
    assert images.max() == 1
    assert torch.allclose(255 * images, (255 * images).round(), atol=1e-4)


def test_what_is_added_is_of_the_size_of_what_jpeg_takes_from_noise():
    x = torch.rand(1, 256 * 256, generator=generator()) * 0.6 + 0.2
    pixels = (255 * x).round().to(torch.uint8).view(256, 256).numpy()
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=75)
    taken = np.asarray(Image.open(file), dtype=np.float64) - pixels
    _, added = with_detail(x, quantisation_steps(75), generator())
    assert 255 * added == pytest.approx(np.sqrt((taken**2).mean()), rel=0.1)


@pytest.mark.slow
def test_the_point(data_dir):
    sample = Sample(data="cifar10", n=400, test_size=200, grayscale=True)
    context = Context(data_dir=data_dir, accelerator="cpu")
    exact = Exact(sample=sample, kernel=gaussian(5.0)).run(context)
    plain, noised = (LostDetail(sample=sample, kernel=gaussian(5.0), share=s).run(context) for s in (0.0, 1.0))
    if not exact["data_source"].endswith("-jpeg"):
        pytest.skip("CIFAR-10 here is not from JPEG files")
    assert plain["test_error"] == pytest.approx(exact["levels"][0]["test_error"], abs=0.011)
    assert plain["rkhs_norm"] == pytest.approx(exact["levels"][0]["rkhs_norm"], rel=1e-3)
    assert plain["added"] == 0
    assert 9 < noised["added"] < 10.5
    assert noised["rkhs_norm"] < plain["rkhs_norm"]


def test_only_compressed_images_have_these_points():
    experiment, setting = Accuracy(), Setting("full")
    limit = limit_in_doubt(setting)
    assert not [p for p in experiment.points(setting, {}) if isinstance(p, LostDetail)]
    assert not [p for p in experiment.points(setting, {limit: {"data_source": "cifar10"}}) if isinstance(p, LostDetail)]
    added = [
        p for p in experiment.points(setting, {limit: {"data_source": "cifar10-jpeg"}}) if isinstance(p, LostDetail)
    ]
    assert added == lost_detail(setting)
    assert [p.share for p in added if p.sample.n == 10_000] == list(SHARES)
    assert [p.share for p in added if p.sample.n is None] == [0.75, 1.0]


def test_the_sentence_compares_like_with_like():
    points = lost_detail(Setting("full"))
    errors = [0.65, 0.64, 0.63, 0.62, 0.625, 0.53, 0.52]
    found = {
        point: {"n": point.sample.n or 50_000, "test_error": error} for point, error in zip(points, errors, strict=True)
    }
    sentence = detail_sentence({"n": 50_000, "levels": [{"test_error": 0.58}]}, sweep_table(found, found))
    assert "n=10000 from 65.00% to 62.00% (at 75% of it)" in sentence
    assert "n=50000 from 58.00% to 52.00% (at 100% of it)" in sentence
