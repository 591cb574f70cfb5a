"""Label noise: counts, kinds, reproducibility, independence, and the Bayes error of noised problems."""

import math

import numpy as np
import pytest
import torch

from datamodules import ArrayDataModule, DigitsDataModule, SyntheticDataModule, add_label_noise
from datamodules.noise import noisy_bayes_error
from kl.errors import InputError


def some_labels(n=1000, c=10):
    return torch.arange(n) % c


@pytest.mark.parametrize("kind", ["random", "flip"])
@pytest.mark.parametrize(
    ("n", "eps", "count"),
    [
        (1000, 0, 0),
        (1000, 0.1, 100),
        (7, 0.5, 4),
        (5, 0.5, 3),
        (50, 0.29, 15),
        (9, 0.3, 3),
        (1000, 1, 1000),
        (3, 0.1, 0),
    ],
)
def test_the_count_is_the_fraction_rounded_to_nearest_halves_up(kind, n, eps, count):
    labels = some_labels(n)
    noisy, replaced = add_label_noise(labels, eps, 10, kind)
    assert replaced.dtype == torch.bool
    assert replaced.sum() == count
    assert torch.equal(noisy[~replaced], labels[~replaced])


def test_flip_always_changes_and_random_sometimes_does_not():
    labels = some_labels(5000)
    flipped, mask = add_label_noise(labels, 0.4, 10, "flip")
    assert torch.equal(flipped != labels, mask)
    drawn, mask = add_label_noise(labels, 0.4, 10, "random")
    kept = (drawn == labels)[mask].float().mean()
    assert kept == pytest.approx(0.1, abs=4 * math.sqrt(0.09 / 2000))


@pytest.mark.parametrize(("kind", "offsets"), [("random", range(4)), ("flip", range(1, 4))])
def test_new_labels_are_uniform(kind, offsets):
    labels = some_labels(12000, 4)
    noisy, _ = add_label_noise(labels, 1.0, 4, kind)
    counts = ((noisy - labels) % 4).bincount(minlength=4)
    for offset in range(4):
        expected = 12000 / len(offsets) if offset in offsets else 0
        assert counts[offset] == pytest.approx(expected, abs=5 * math.sqrt(12000 / 4))


def test_noise_depends_on_its_seed_alone():
    labels = some_labels()
    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.get_rng_state()
    first = add_label_noise(labels, 0.3, 10, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again = add_label_noise(labels, 0.3, 10, seed=5)
    other = add_label_noise(labels, 0.3, 10, seed=6)
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[1], other[1])
    assert torch.equal(labels, some_labels())  # the input is not modified


def test_the_positions_do_not_depend_on_the_kind():
    masks = [add_label_noise(some_labels(), 0.2, 10, kind, seed=3)[1] for kind in ("random", "flip")]
    assert torch.equal(*masks)


@pytest.mark.parametrize("eps", [-0.1, 1.1, math.nan, math.inf, "0.1", None, True])
def test_a_fraction_out_of_range_is_refused(eps):
    with pytest.raises(InputError, match=r"label_noise must be a fraction in \[0, 1\]; got"):
        add_label_noise(some_labels(), eps, 10)
    with pytest.raises(InputError, match="label_noise must be"):
        DigitsDataModule(label_noise=eps)


def test_an_unknown_kind_is_refused():
    with pytest.raises(InputError, match="noise_kind must be 'random' or 'flip'; got 'shuffle'"):
        DigitsDataModule(label_noise=0.1, noise_kind="shuffle")


def test_labels_must_be_in_range_and_flips_need_two_classes():
    with pytest.raises(InputError, match=r"labels must be in 0..3 for 4 classes; got 0..9"):
        add_label_noise(some_labels(), 0.1, 4)
    with pytest.raises(InputError, match="at least two classes"):
        add_label_noise(torch.zeros(5, dtype=torch.long), 0.5, 1, "flip")


@pytest.mark.parametrize("kind", ["random", "flip"])
def test_a_data_module_keeps_clean_labels_and_the_mask(kind):
    clean, noisy = DigitsDataModule(), DigitsDataModule(label_noise=0.25, noise_kind=kind)
    clean.setup()
    noisy.setup()
    assert not clean.noise_mask.any()
    assert clean.test_set.y_noisy is None
    assert noisy.noise_mask.sum() == 359  # 0.25 * 1437 = 359.25
    assert torch.equal(noisy.clean_labels, clean.train_set.y.argmax(1))
    changed = noisy.train_set.y.argmax(1) != noisy.clean_labels
    assert not (changed & ~noisy.noise_mask).any()
    assert torch.equal(changed, noisy.noise_mask) == (kind == "flip")
    # The test set: y stays clean, y_noisy is noised by the same fraction and kind, by other draws.
    assert torch.equal(noisy.test_set.y, clean.test_set.y)
    changed = (noisy.test_set.y_noisy != noisy.test_set.y).any(1)
    assert changed.sum() == 90 if kind == "flip" else 60 < changed.sum() <= 90
    assert torch.equal(noisy.train_set.x, clean.train_set.x)


def test_seed_and_noise_seed_are_independent():
    def module(**options):
        data = DigitsDataModule(train_size=300, label_noise=0.2, **options)
        data.setup()
        return data

    base, noise, rows = module(), module(noise_seed=1), module(seed=1)
    assert torch.equal(base.train_set.x, noise.train_set.x)
    assert not torch.equal(base.noise_mask, noise.noise_mask)
    assert not torch.equal(base.train_set.x, rows.train_set.x)
    assert torch.equal(base.noise_mask, rows.noise_mask)


@pytest.mark.parametrize(("kind", "eps"), [("random", 0.3), ("random", 0.9), ("flip", 0.3), ("flip", 0.9)])
def test_the_noisy_bayes_error_is_what_the_best_rule_measures(kind, eps):
    data = SyntheticDataModule(kind=2, train_size=20, test_size=40000, label_noise=eps, noise_kind=kind)
    data.setup()
    x, y = data.test_set.x, data.test_set.y_noisy.argmax(1)
    wrong = ((x[:, 0] < 1).long() != y).float().mean().item()
    best = min(wrong, 1 - wrong)  # flips of most labels make the opposite rule the best one
    assert data.noisy_bayes_error == pytest.approx(best, abs=4 * 0.5 / math.sqrt(40000))


def test_the_noisy_bayes_error_of_many_classes():
    assert noisy_bayes_error(0.05, 0.8, 10) == pytest.approx(0.8 * 0.9 + 0.2 * 0.05)
    assert noisy_bayes_error(0.0, 0.3, 10, "flip") == pytest.approx(0.3)
    with pytest.raises(InputError, match=r"known up to label_noise=0.9"):
        noisy_bayes_error(0.0, 0.95, 10, "flip")


@pytest.mark.parametrize("kind", ["random", "flip"])
def test_training_and_test_labels_are_noised_by_different_draws(kind):
    """Of equal sizes and labels: from one seed the same rows would be noised in the same way."""
    x, y = np.arange(400.0)[:, None], np.arange(400) % 4
    data = ArrayDataModule.from_arrays(x, y, x, y, label_noise=0.5, noise_kind=kind)
    data.setup()
    train, test = ((part != data.test_set.y).any(1) for part in (data.train_set.y, data.test_set.y_noisy))
    both = int((train & test).sum())
    wanted = 0.25 if kind == "flip" else 0.25 * 0.75**2
    assert both == pytest.approx(400 * wanted, abs=35)  # as of independent draws; from one seed 200 or 150
