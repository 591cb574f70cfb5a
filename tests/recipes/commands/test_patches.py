"""`--features patches`: from `kl fit`, `kl tune` and `kl interpolate` to predictions."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits

import kl as kernel_learning

PATCHES = ("--features", "patches:16", "--patch-size", 3)
DIGITS = ("--data", "digits", "--train-size", 150, "--test-size", 80, "--kernel", "gaussian", *PATCHES)


def json_of(kl, *arguments):
    result = kl(*arguments, "--json")
    assert result.code == 0, result.err
    return json.loads(result.out)


@pytest.fixture
def images():
    """Thirty digits, as the training images are stored."""
    np.savez("new.npz", x=load_digits().images[:30].astype("float32"))
    return "new.npz"


def predicted(kl, model, images):
    result = kl("predict", model, "--input", images, "--output", "out.csv")
    assert result.code == 0, result.err
    return pd.read_csv("out.csv")


def test_a_run_and_what_is_made_of_its_checkpoint(kl, images):
    """The checkpoint, and the model that `kl export` keeps of it, take images."""
    found = json_of(kl, "fit", *DIGITS, "--epochs", 4, "--ridge", 0)
    assert (found["d"], found["n"]) == (64, 150)
    assert found["test_error"] < 0.25
    first = predicted(kl, found["last_checkpoint"], images)
    assert (first["class"] == load_digits().target[:30]).mean() > 0.8
    assert kl("export", found["last_checkpoint"], "--output", "small.ckpt").code == 0
    pd.testing.assert_frame_equal(predicted(kl, "small.ckpt", images), first, rtol=1e-6)
    more = json_of(kl, "fit", *DIGITS, "--epochs", 5, "--ridge", 0, "--resume", "last")
    assert more["epochs"] == 5
    np.savez("large.npz", x=np.zeros((2, 9, 9), dtype="float32"))
    result = kl("predict", "small.ckpt", "--input", "large.npz", "--output", "no.csv")
    assert result.code == 2
    assert "x must have 64 features, as in training; got 81" in result.err
    assert not Path("no.csv").exists()


def test_an_exact_solution_takes_images(kl, images):
    found = json_of(kl, "interpolate", *DIGITS, "--patch-encoding", "rectified", "--save", "exact.ckpt")
    assert found["d"] == 128
    assert (predicted(kl, "exact.ckpt", images)["class"] == load_digits().target[:30]).mean() > 0.8


def test_an_estimator_of_a_checkpoint_takes_rows_of_pixels(kl, images):
    """And writes a file that `kl predict` reads."""
    json_of(kl, "interpolate", *DIGITS, "--save", "exact.ckpt")
    first = predicted(kl, "exact.ckpt", images)
    model = kernel_learning.load("exact.ckpt")
    rows = np.load(images)["x"].reshape(30, 64)
    assert model.n_features_in_ == 64
    np.testing.assert_array_equal(model.predict(rows).astype(int), first["class"])
    model.save("again.ckpt")
    pd.testing.assert_frame_equal(predicted(kl, "again.ckpt", images), first, rtol=1e-6)


def test_tune_gives_a_config_for_fit(kl):
    result = kl(
        *("tune", "--data", "digits", "--train-size", 100, "--test-size", 50, *PATCHES),
        *("--kernels", "gaussian", "--ridges", "0.01", "--name", "tuned"),
    )
    assert result.code == 0, result.err
    found = json_of(kl, "fit", "--config", "lightning_logs/tune/tuned/config.yaml", "--epochs", 1)
    assert found["d"] == 64


def test_a_threshold_of_0_is_no_default(kl):
    """It is 0.15 by default, and 0 gives other features."""
    norms = [
        json_of(kl, "interpolate", *DIGITS, "--patch-encoding", "soft", "--ridge", 0.1, *more)["rkhs_norm"]
        for more in ((), ("--patch-threshold", 0.15), ("--patch-threshold", 0))
    ]
    assert norms[0] == norms[1] != norms[2]


def test_tune_refuses_augmentation(kl):
    result = kl("tune", "--data", "digits", "--augment", "flip")
    assert result.code == 2
    assert "augment is for kl fit and kl interpolate; got 'flip': leave it out" in result.err


@pytest.mark.parametrize("features", [(), PATCHES], ids=["pixels", "patches"])
def test_mirror_images(kl, images, features):
    options = ("--data", "digits", "--train-size", 150, "--augment", "flip", *features, "--kernel", "gaussian")
    found = json_of(kl, "interpolate", *options, "--save", "model.ckpt")
    assert found["kernel"] == "mirrored"
    assert found["bandwidth"] == found["kernel_parameters"]["part"]["bandwidth"] > 0
    assert found["train_error"] == 0
    trained = json_of(kl, "fit", *options, "--epochs", 2)
    assert trained["kernel_parameters"] == found["kernel_parameters"]
    np.savez("turned.npz", x=load_digits().images[:30, :, ::-1].astype("float32"))
    for model in ("model.ckpt", trained["checkpoint"]):
        one, other = (predicted(kl, model, each).select_dtypes("number") for each in (images, "turned.npz"))
        # The patches of a mirror image are whitened to other last bits.
        np.testing.assert_allclose(one, other, atol=0.05 if features else 1e-4)


def test_plan(kl):
    assert json_of(kl, "plan", *DIGITS)["d"] == 64


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--features", "patch"), "features must be plain, patches or patches:COUNT; got 'patch'"),
        (("--features", "patches:"), "got 'patches:'"),
        (("--features", "patches:0"), "--features patches:COUNT must be a whole number, 1 or above; got 0"),
        (("--patch-size", 5), "--patch-size is of image patches: give --features patches as well"),
        (("--features", "patches", "--patch-size", 0), "--patch-size must be a whole number, 1 or above; got 0"),
        (("--features", "patches", "--patch-pool", 0), "--patch-pool must be"),
        (("--features", "patches", "--patch-stride", 0), "--patch-stride must be"),
        (("--features", "patches", "--patch-active", 0), "--patch-active must be a finite number above 0"),
        (("--features", "patches", "--patch-whitening", 0), "--patch-whitening must be a finite number above 0"),
        (("--patch-threshold", 0), "--patch-threshold is of image patches"),
        (("--patch-mirrored",), "--patch-mirrored is of image patches"),
        (
            ("--features", "patches", "--patch-size", 9),
            "images must be at least as large as a patch, 9 x 9 pixels; got 8 x 8: give larger images or a "
            "smaller --patch-size",
        ),
        (
            ("--features", "patches:99999", "--patch-size", 8),
            "--features patches:COUNT must be at most the number of patches, 1437 in 1437 images; got 99999: give more "
            "images or a smaller --features patches:COUNT",
        ),
        (
            ("--features", "patches", "--patch-size", 3, "--patch-pool", 7),
            "--patch-pool must be at most the 6 positions of a patch along the shorter side of an image; got 7: give a "
            "smaller --patch-pool or --patch-size, or larger images",
        ),
        (("--features", "patches", "--patch-active", 0.2), "--patch-active is of --patch-encoding count; got 0.2"),
        (
            ("--features", "patches", "--patch-encoding", "count", "--patch-threshold", 0.2),
            "--patch-threshold is of --patch-encoding soft or rectified; got 0.2",
        ),
        (("--augment", "rotate"), "augment must be shift, shift:PIXELS, flip, or"),
        (("--augment", "flip", "--solver", "rfm"), "augment flip is not for learning features"),
        (("--augment", "flip", "--learn-features", 2), "augment flip is not for learning features"),
        (("--augment", "shift"), "augment must be flip where the centres are the training rows"),
        (("--augment", "flip", "--kernel", "lpq-laplacian"), "augment flip needs a kernel of distances or inner"),
        (("--data", "synthetic1", "--augment", "flip"), "augment changes images, and the rows of synthetic1 are none"),
        (
            ("--features", "patches", "--patch-size", 3, "--patch-pool", 3, "--patch-stride", 2, "--augment", "flip"),
            "--patch-pool and --patch-stride must give cells that are their own mirror image; got columns from 0 to 5 "
            "of 6 positions",
        ),
        (("--features", "patches", "--patch-active", 2), "--patch-active must be a share"),
        (
            ("--features", "patches", "--patch-encoding", "sign"),
            "--patch-encoding must be one of count, soft",
        ),
        (("--features", "patches", "--patch-dictionary", "mine"), "--patch-dictionary must be one of random, kmeans"),
        (
            ("--data", "synthetic1", "--features", "patches"),
            "patches are of images, and the rows of synthetic1 are none",
        ),
    ],
    ids=lambda each: " ".join(map(str, each)) if isinstance(each, tuple) else "",
)
def test_wrong_input_is_one_line(kl, options, text):
    data = () if "--data" in options else ("--data", "digits")
    result = kl("fit", *data, *options)
    assert result.code == 2
    (error,) = [line for line in result.err.splitlines() if line.startswith("error:")]
    assert text in error
    assert "Traceback" not in result.err
    assert not Path("lightning_logs").exists()


def test_a_budget_that_is_too_small_is_an_option(kl):
    result = kl("fit", "--data", "digits", "--features", "patches", "--memory", "1KB")
    assert result.code == 1
    assert "raise --memory, or give a smaller --features patches:COUNT or --patch-size\n" in result.err


def test_a_stream_of_images_on_the_command_line(kl, images):
    digits = load_digits()
    x, y = (digits.images * 15).astype(np.uint8), digits.target
    Path("digits/train").mkdir(parents=True)
    for number in range(3):
        np.savez(f"digits/train/{number}.npz", x=x[number:600:3], y=y[number:600:3])
    np.savez("digits/test.npz", x=x[600:700], y=y[600:700])
    options = ("--data", "stream:digits", *PATCHES, "--solver", "eigenpro4", "--centers", 200, "--epochs", 4)
    found = json_of(kl, "fit", *options, "--augment", "shift:1")
    assert (found["n"], found["d"]) == (600, 64)
    assert found["test_error"] < 0.25
    np.savez("new.npz", x=x[600:630])
    assert (predicted(kl, found["last_checkpoint"], "new.npz")["class"] == y[600:630]).mean() > 0.8
    assert json_of(kl, "plan", *options)["d"] == 64


def test_a_stream_of_no_images(kl):
    Path("table/train").mkdir(parents=True)
    np.savez("table/train/0.npz", x=np.random.default_rng(0).normal(size=(20, 3)), y=np.arange(20) % 2)
    result = kl("fit", "--data", "stream:table", "--features", "patches", "--solver", "eigenpro4")
    assert result.code == 2
    assert "error: patches are of images, and the rows of table are none: leave them out" in result.err


def test_a_plan_counts_features(kl):
    """Of which there are more than pixels; and the seconds of an epoch's, where images are changed anew."""
    options = ("--data", "digits", "--train-size", 100, "--solver", "eigenpro4", "--centers", 50)
    more = ("--features", "patches:64", "--patch-size", 3)
    pixels, features = json_of(kl, "plan", *options), json_of(kl, "plan", *options, *more)
    assert (pixels["d"], features["d"]) == (64, 256)
    grown = features["memory_items"]["centres"] / pixels["memory_items"]["centres"]
    assert 3.5 < grown < 4.1
    assert pixels["seconds_features"] is features["seconds_features"] is None
    assert json_of(kl, "plan", *options, *more, "--augment", "flip")["seconds_features"] > 0
    shown = kl("plan", *options, *more, "--augment", "flip").out
    assert "an epoch's features of patches" in shown
