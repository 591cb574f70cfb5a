"""One scale and one origin for a data set: what float32 would lose is kept, mixed kinds are converted or refused."""

import csv
import json
import logging
from dataclasses import replace

import numpy as np
import oracle
import pytest
import torch
from training import quiet_trainer

from datamodules import ArrayDataModule, IterableDataModule, KernelDataModule, RawData, StreamDataModule
from kl import GeneralKernelMachine, KernelMachine, Laplacian, Polynomial, load_machine
from kl.errors import CheckpointError, InputError
from kl.rows.encoding import FeatureEncoding
from kl.rows.pixels import pixel_unit

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (40, 6, 7), dtype=np.uint8)
PIXELS[0, 0, :2] = 0, 255
LABELS = np.arange(40) % 2
UTM, UNIX = np.array([5e5, 5.3e6]), np.array([1.7e9, 1.7e9])


def field(n=160):
    """Points in a field of 40 m and a smooth target with noise."""
    x = RNG.uniform(0, 40, (n, 2))
    return x, np.sin(x[:, 0] / 8) * np.cos(x[:, 1] / 10) + 0.1 * RNG.standard_normal(n)


def ready(x_train, x_test=None, y=LABELS, **options):
    data = ArrayDataModule.from_arrays(
        x_train, y[: len(x_train)], x_test, None if x_test is None else y[: len(x_test)], **options
    )
    data.setup()
    return data


# The origin


@pytest.mark.parametrize("offset", [UTM, UNIX])
def test_features_far_from_0_give_the_results_of_the_same_features_near_0(kl, caplog, offset):
    x, y = field()
    alpha = np.linalg.solve(oracle.matrix(oracle.laplacian, x[:120], x[:120], bandwidth=20), y[:120])
    right = np.mean((oracle.matrix(oracle.laplacian, x[120:], x[:120], bandwidth=20) @ alpha - y[120:]) ** 2)
    x = x + offset
    np.savez("far.npz", x_train=x[:120], y_train=y[:120], x_test=x[120:], y_test=y[120:])
    result = kl("interpolate", "--data", "npz:far.npz", "--kernel", "laplacian", "--bandwidth", 20, "--json")
    assert json.loads(result.out)["test_mse"] == pytest.approx(right, rel=1e-4)
    assert "the median of columns 0, 1, far from 0 for the spread there, is subtracted" in caplog.text
    options = ("--kernel", "laplacian", "--bandwidth", 20, "--solver", "pcg", "--epochs", 80, "--json")
    found = json.loads(kl("fit", "--data", "npz:far.npz", *options).out)
    assert found["test_mse"] == pytest.approx(right, rel=1e-3)
    assert found["exact_test_mse"] == pytest.approx(right, rel=1e-4)
    assert kl("predict", found["checkpoint"], "--input", "far.npz", "--output", "out.csv").code == 0
    with open("out.csv", newline="") as file:
        predicted = np.array([float(row["output_0"]) for row in csv.DictReader(file)])
    assert np.mean((predicted - y[120:]) ** 2) == pytest.approx(right, rel=1e-3)


def test_the_origin_is_the_median_of_the_training_rows_subtracted_in_float64():
    x = field(50)[0] * [1, 1e-3] + [1.7e9, 0.5]
    data = ready(x[:40], x[40:])
    median = np.sort(x[:40, 0])[19]  # the lower one, which is a value of the data
    assert data.encoding.origin == (median, 0.0)
    assert torch.equal(data.train_set.x, torch.from_numpy((x[:40] - [median, 0]).astype(np.float32)))
    assert torch.equal(data.test_set.x, torch.from_numpy((x[40:] - [median, 0]).astype(np.float32)))
    assert torch.equal(data.encoding.encode(torch.from_numpy(x[40:])), data.test_set.x)


@pytest.mark.parametrize(
    "column",
    [
        RNG.standard_normal(200),
        np.exp(3 * RNG.standard_normal(200)),  # long tails
        np.where(RNG.random(200) < 0.9, 0.0, RNG.random(200)),  # sparse
        np.full(200, 0.3),  # a bias
        RNG.uniform(293, 313, 200),
        RNG.integers(0, 256, 200) / 255,
        (RNG.integers(200, 202, 200) / 255 - 0.13) / 0.31,  # standardised pixels
        np.arange(1990.0, 2190.0),
        np.where(np.arange(200) < 100, 0.0, 1e9 + RNG.random(200)),  # two scales: no shift helps
    ],
)
def test_columns_that_float32_holds_stay_as_they_are(column):
    encoding = FeatureEncoding.fit(torch.from_numpy(column)[:, None])
    assert encoding.origin == ()
    expected = torch.from_numpy(column.astype(np.float32))[:, None]
    assert torch.equal(encoding.encode(torch.from_numpy(column)[:, None]), expected)


def test_values_that_are_missing_do_not_hide_that_the_others_lie_far_from_0():
    x = torch.from_numpy(1.7e9 + RNG.uniform(0, 86400, 100))[:, None]
    x[::10] = 0
    encoding = FeatureEncoding.fit(x)
    found = encoding.encode(x).double() + encoding.origin[0]
    assert float((found - x)[1].abs()) < 0.01


def test_float32_and_8_bit_features_have_no_origin():
    assert FeatureEncoding.fit(torch.tensor([[1.7e9], [1.7e9 + 128]])).origin == ()
    assert ready(PIXELS).encoding == FeatureEncoding(255.0, (), "uint8", 1.0, 255)
    assert torch.equal(ready(PIXELS).train_set.x, torch.from_numpy(PIXELS).flatten(1).float() / 255)


def test_float32_samples_for_an_origin_are_a_warning(caplog):
    x = field()[0] + UTM
    with caplog.at_level(logging.WARNING):
        ready(x[:40], x[40:50].astype(np.float32))
    assert "x_test is float32, which loses digits of columns 0, 1: give float64" in caplog.text


def test_a_kernel_that_is_not_shift_invariant_is_told_of_the_origin(kl, caplog):
    x, y = field()
    data = ready(x[:40] + UTM, y=y)
    with caplog.at_level(logging.WARNING):
        KernelMachine(Polynomial(degree=2)).take(data)
    assert "is not shift-invariant, and the data module has shifted columns" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        plain = ready(x[:40] + UTM, y=y, shift=False)
        KernelMachine(Laplacian(20.0)).take(plain)
    assert plain.encoding.origin == ()
    assert torch.equal(plain.train_set.x, torch.from_numpy(x[:40] + UTM).float())
    assert "float32 loses digits of columns 0, 1" in caplog.text
    assert "shift-invariant" not in caplog.text
    caplog.clear()
    np.savez("far.npz", x_train=x[:40] + UTM, y_train=y[:40])
    found = kl("fit", "--data", "npz:far.npz", "--kernel", "polynomial", "--epochs", 1, "--no-exact", "--json")
    assert found.code == 0, found.err
    assert "float32 loses digits of columns 0, 1" in caplog.text
    assert load_machine(json.loads(found.out)["checkpoint"]).data_info["encoding"]["origin"] == []


def test_augmented_images_keep_0(caplog):
    class Warm(KernelDataModule):
        name = "warm"

        def load(self):
            x = 3000 + torch.from_numpy(RNG.random((20, 16)))
            return RawData(x, torch.arange(20) % 2, class_names=["a", "b"], image_shape=(1, 4, 4))

    plain, augmented = Warm(), Warm(augment="shift")
    plain.setup()
    augmented.setup()
    assert plain.encoding.origin
    assert augmented.encoding.origin == ()


def test_centers_of_a_file_have_the_origin_of_the_data(kl):
    x, y = field()
    x = x + UTM
    np.savez("far.npz", x_train=x[:120], y_train=y[:120], x_test=x[120:], y_test=y[120:])
    np.savez("centers.npz", centers=x[:30])
    arguments = ("--solver", "eigenpro4", "--centers", "centers.npz", "--data", "npz:far.npz", "--bandwidth", 20)
    found = kl("fit", *arguments, "--epochs", 1, "--no-exact", "--json")
    assert found.code == 0, found.err
    machine = load_machine(json.loads(found.out)["checkpoint"])
    encoding = FeatureEncoding.from_dict(machine.data_info["encoding"])
    expected = encoding.encode(torch.from_numpy(x[:30]))
    assert torch.equal(machine.centers.sort(dim=0)[0], expected.sort(dim=0)[0])
    assert json.loads(kl("plan", *arguments, "--json").out)["centers"] == 30


def test_streams_have_the_origin_of_their_sample(tmp_path):
    x, y = field()
    x = x + UTM
    (tmp_path / "train").mkdir()
    for i in range(3):
        rows = slice(40 * i, 40 * (i + 1))
        np.savez(tmp_path / "train" / f"{i}.npz", x=x[rows], y=y[rows])
    np.savez(tmp_path / "test.npz", x=x[120:], y=y[120:])
    data = StreamDataModule(tmp_path, batch_size=50)
    data.setup()
    origin = torch.tensor(data.encoding.origin, dtype=torch.float64)
    rows = torch.cat([x for x, _ in data.train_dataloader()])
    expected = (torch.from_numpy(x[:120]) - origin).float()
    assert torch.equal(rows.sort(dim=0)[0], expected.sort(dim=0)[0])
    assert torch.equal(data.test_set.x, (torch.from_numpy(x[120:]) - origin).float())


def test_iterable_datasets_have_the_origin_of_their_sample():
    x, y = (torch.from_numpy(each) for each in field())
    x, y = x + torch.from_numpy(UTM), y[:, None]
    data = IterableDataModule([(x[:60], y[:60]), (x[60:120], y[60:120])], (x[:60], y[:60]), (x[120:], y[120:]))
    data.setup()
    origin = torch.tensor(data.encoding.origin, dtype=torch.float64)
    assert torch.equal(torch.cat([x for x, _ in data.train_dataloader()]), (x[:120] - origin).float())
    assert torch.equal(data.test_set.x, (x[120:] - origin).float())
    machine = GeneralKernelMachine(Laplacian(20.0), 30, batch_size=20)
    quiet_trainer(max_epochs=1).fit(machine, datamodule=data)
    assert machine.data_info["encoding"]["origin"] == list(data.encoding.origin)


def test_a_machine_refuses_samples_that_have_not_been_encoded():
    x, y = field()
    data = ready(x[:40] + UTM, y=y)
    machine = KernelMachine(Laplacian(20.0))
    machine.take(data)
    raw = torch.from_numpy(x[40:50] + UTM)
    assert machine(data.encoding.encode(raw)).shape == (10, 1)
    with pytest.raises(InputError, match=r"lies at that origin: give datamodule.encoding.encode\(x\)"):
        machine(raw)


# What float32 cannot hold


def test_rows_that_become_equal_are_a_warning_that_names_the_column(caplog):
    x = np.stack([np.arange(40.0) % 20, np.where(LABELS == 0, 1e9, 0) + 1e-3 * np.arange(40)], axis=1)
    x[:20, 0] = x[20:, 0]
    with caplog.at_level(logging.WARNING):
        ready(x)
    assert "x_train: 10 rows that differ become equal in float32, most by column 1" in caplog.text


def test_values_beyond_float32_are_refused_with_their_column():
    x = RNG.standard_normal((40, 3))
    x[7, 1] = 1e39
    with pytest.raises(InputError, match=r"x_train holds 1e\+39 in column 1, and float32 ends at 3.4e\+38: divide"):
        ready(x)
    with pytest.raises(InputError, match=r"x_test holds 1e\+39 in column 1"):
        ready(RNG.standard_normal((40, 3)), x)


def test_values_below_float32_are_a_warning_that_names_the_column(caplog):
    x = RNG.standard_normal((40, 3))
    x[:, 2] *= 1e-60
    with caplog.at_level(logging.WARNING):
        ready(x)
    assert "x_train: values of column 2 (40 in all) are too small for float32 and become 0" in caplog.text


# Mixed kinds


@pytest.mark.parametrize("train", ["uint8", "float32", "shares"])
@pytest.mark.parametrize("test", ["uint8", "float64", "shares"])
def test_the_same_pixels_are_the_same_features_in_every_dtype(train, test, caplog):
    def stored(kind):
        return PIXELS / np.float32(255) if kind == "shares" else PIXELS.astype(kind)

    if (train == "uint8") == (test == "uint8"):
        return  # of one kind: as they are, see below
    with caplog.at_level(logging.INFO):
        data = ready(stored(train), stored(test))
    assert torch.equal(data.test_set.x, data.train_set.x)
    assert "x_test holds" in caplog.text
    assert "read as pixels on the training rows' scale" in caplog.text


def test_floats_beside_floats_stay_as_they_are(caplog):
    data = ready(PIXELS.astype(np.float32), PIXELS / 255)
    assert torch.equal(data.test_set.x, torch.from_numpy(PIXELS / 255).float().flatten(1))
    assert not caplog.text


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (
            PIXELS,
            RNG.random((40, 42)),
            "x_test holds float64 values from .*, and the training rows are uint8 pixels from",
        ),
        (PIXELS, PIXELS - 128.0, "x_test holds float64 values from -128 to 127, .*whether both have the same units"),
        (PIXELS, np.minimum(PIXELS, 1.0), "x_test holds float64 values from 0 to 1"),  # black and white, or all black
        (RNG.random((40, 42)), PIXELS, "x_test holds uint8 values from 0 to 255, and the training rows are floats, no"),
        (PIXELS // 16 * 1.0, PIXELS, "the training rows are float pixels from 0 to 15: whether both"),
        (PIXELS // 128 * 1.0, PIXELS, "the training rows are float pixels from 0 to 1: whether both"),
        ((PIXELS // 51) / 5.0, PIXELS, "the training rows are floats, no pixels"),
    ],
)
def test_kinds_that_may_be_of_other_units_are_refused(train, test, message):
    with pytest.raises(InputError, match=message):
        ready(train, test)


def test_small_whole_numbers_of_both_kinds_are_of_one_scale():
    few = PIXELS // 16
    assert torch.equal(ready(few.astype(float), few).test_set.x, torch.from_numpy(few).flatten(1).float())
    bits = PIXELS // 128
    assert torch.equal(ready(bits.astype(float), bits).test_set.x, torch.from_numpy(bits).flatten(1).float())


def test_a_stream_and_its_test_set_have_one_scale(tmp_path):
    (tmp_path / "train").mkdir()
    np.savez(tmp_path / "train" / "0.npz", x=PIXELS, y=LABELS)
    np.savez(tmp_path / "test.npz", x=PIXELS.astype(np.float32), y=LABELS)
    data = StreamDataModule(tmp_path, batch_size=40)
    data.setup()
    x = next(iter(data.train_dataloader()))[0]
    assert torch.equal(x.sort(dim=0)[0], data.test_set.x.sort(dim=0)[0])


@pytest.mark.parametrize("trained_on", ["uint8", "float64"])
def test_predict_scales_as_training_did(kl, caplog, trained_on):
    x, other = PIXELS.astype(trained_on), PIXELS.astype("float64" if trained_on == "uint8" else "uint8")
    np.savez("data.npz", x_train=x, y_train=LABELS)
    found = json.loads(kl("fit", "--data", "npz:data.npz", "--epochs", 2, "--no-exact", "--json").out)
    for name, values in (("same", x), ("other", other)):
        np.savez(f"{name}.npz", x=values)
        result = kl("predict", found["checkpoint"], "--input", f"{name}.npz", "--output", f"{name}.csv")
        assert result.code == 0, result.err
    assert "read as pixels on the training rows' scale" in caplog.text
    with open("same.csv") as same, open("other.csv") as others:
        assert same.read() == others.read()
    np.savez("odd.npz", x=RNG.random((3, 42)) if trained_on == "uint8" else PIXELS[:3] // 255)
    result = kl("predict", found["checkpoint"], "--input", "odd.npz", "--output", "odd.csv")
    assert result.code == 2
    assert "error: x of input odd.npz holds" in result.err
    assert "whether both have the same units is not certain" in result.err


def test_images_in_0_to_1_are_on_the_scale_of_image_files():
    encoding = FeatureEncoding.fit(torch.tensor([[0.0, 0.3], [0.7, 1.0]]), images=True)
    assert torch.equal(encoding.encode(torch.tensor([[51, 255]], dtype=torch.uint8)), torch.tensor([[0.2, 1.0]]))


def test_pixels_are_told_from_other_values():
    assert pixel_unit(torch.from_numpy(PIXELS / 255).flatten(1)) == 1 / 255
    assert pixel_unit(torch.from_numpy(PIXELS / np.float32(255)).flatten(1)) == 1 / 255
    assert pixel_unit(torch.tensor([[256.0]])) == pixel_unit(torch.tensor([[-1.0]])) == 0
    late = torch.zeros(5000, 1)
    late[4999] = 0.5
    assert pixel_unit(late) == 0


# Checkpoints


def test_an_encoding_survives_as_plain_values():
    encoding = replace(FeatureEncoding.fit(torch.from_numpy(field()[0] + UTM)), levels=3)
    assert FeatureEncoding.from_dict(encoding.to_dict()) == encoding
    assert FeatureEncoding.from_dict({}) == FeatureEncoding()
    assert type(encoding.to_dict()["origin"]) is list


def test_standardised_features_are_rounded_once():
    x = torch.tensor([[1e9 + 1.0, 2.0], [1e9 + 2.0, -7.0]], dtype=torch.float64)
    encoding = FeatureEncoding.standardized([1e9, 1.0], [0.5, 3.0])
    assert torch.equal(encoding.encode(x), ((x - torch.tensor([1e9, 1.0]).double()) / torch.tensor([0.5, 3.0])).float())
    assert FeatureEncoding.from_dict(encoding.to_dict()) == encoding
    with pytest.raises(InputError, match="x must have 2 features, as in training; got 3"):
        encoding.encode(torch.ones(1, 3))


@pytest.mark.parametrize(
    "change",
    [
        {"scale": [1.0]},
        {"origin": [1.0, 2.0], "scale": [1.0, 0.0]},
        {"origin": [1.0], "scale": ["1"]},
        {"divisor": 0.0},
        {"divisor": "255"},
        {"origin": [float("nan")]},
        {"origin": 3},
        {"dtype": "int8"},
        {"unit": 0.1},
        {"other": 1},
    ],
)
def test_a_damaged_encoding_is_refused(change):
    with pytest.raises(CheckpointError, match="the checkpoint's feature encoding is damaged"):
        FeatureEncoding.from_dict({**FeatureEncoding().to_dict(), **change})


def test_a_run_does_not_go_on_with_another_origin(tmp_path):
    x, y = field()
    first, other = ready(x[:60] + UTM, y=y), ready(x[:60] + UTM + 1, y=y)
    with pytest.raises(CheckpointError, match="features of another scale or origin"):
        other.load_state_dict(first.state_dict())
    first.load_state_dict(first.state_dict())
