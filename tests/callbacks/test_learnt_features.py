"""What a machine that learns its metric has learnt: scalars, names and shares, the picture, and resumed runs."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training import quiet_trainer

import kl
import kl.rows.table
from callbacks import LearntFeatures
from callbacks.features_figure import LearntMetric, Rounds, effective_rank, features_figure
from callbacks.learnt_features import column_shares, feature_importances, learnt_metric, spectrum_of
from datamodules import ArrayDataModule, DigitsDataModule, TableDataModule

ROUNDS = 2


def table(n=100, seed=0):
    """The price follows the area and the town; the colour and the noise do not count."""
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame({"area": rng.normal(size=n), "noise": rng.normal(size=n)})
    rows["town"] = rng.choice(["Ulm", "Bonn", "Kiel"], n)
    rows["colour"] = rng.choice(["red", "blue"], n)
    rows["price"] = 3 * np.sin(rows["area"]) + 2.0 * (rows["town"] == "Ulm") - 2.0 * (rows["town"] == "Kiel")
    return TableDataModule.from_dataframe(rows, "price")


def digits(**options):
    return DigitsDataModule(train_size=80, test_size=30, **options)


def fit(data, *callbacks, folder=None, epochs=ROUNDS + 2, ckpt_path=None, machine=None, **options):
    logger = TensorBoardLogger(folder, name="", default_hp_metric=False) if folder is not None else False
    trainer = quiet_trainer(epochs, logger=logger, log_every_n_steps=1, callbacks=list(callbacks), **options)
    machine = machine or kl.RecursiveFeatureMachine(rounds=ROUNDS, by="holdout")
    trainer.fit(machine, datamodule=data, ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return trainer, machine


@pytest.fixture(scope="module")
def of_table():
    return fit(table(), learnt := LearntFeatures())[1], learnt


def test_a_category_counts_as_one_column(of_table):
    machine, _ = of_table
    assert machine.round > 0
    encoding = kl.rows.table.TableEncoding.from_dict(machine.data_info["table"])
    by_feature = dict(
        zip(encoding.feature_names, (machine.importances / machine.importances.sum()).tolist(), strict=True)
    )
    shares = feature_importances(machine)
    assert list(shares) == ["area", "noise", "town", "colour"]
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["area"] == pytest.approx(by_feature["area"])
    assert shares["town"] == pytest.approx(sum(by_feature[f"town={name}"] for name in ("Ulm", "Bonn", "Kiel")))
    assert min(shares["area"], shares["town"]) > 3 * max(shares["noise"], shares["colour"])


def test_the_spectrum_is_that_of_the_metric(of_table):
    machine, learnt = of_table
    values = torch.linalg.eigvalsh(machine.root @ machine.root).flip(0)
    np.testing.assert_allclose(learnt.spectra[machine.round], values.clamp(min=0), atol=1e-12)
    assert learnt.spectra[0] == [1.0] * len(values)
    assert sorted(learnt.spectra) == list(range(len(machine.scores)))
    assert learnt.scores == machine.scores
    diagonal = fit(table(), machine=kl.RecursiveFeatureMachine(rounds=1, by="holdout", metric="diagonal"))[1]
    assert spectrum_of(diagonal).tolist() == sorted(diagonal.importances.tolist(), reverse=True)


def test_effective_rank():
    assert effective_rank(np.array([3.0, 3.0, 3.0])) == pytest.approx(3)
    assert effective_rank(np.array([5.0, 0.0])) == pytest.approx(1)
    p = np.array([0.7, 0.2, 0.1])
    assert effective_rank(9 * p) == pytest.approx(math.prod(p**-p))


def texts(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def test_the_figure_of_a_table_shows_these_numbers(of_table):
    machine, learnt = of_table
    rounds = Rounds(machine.round, {k: np.array(each) for k, each in learnt.spectra.items()}, learnt.scores, "holdout")
    figure = features_figure(rounds, learnt_metric(machine), "houses")
    bars, *vectors, spectrum, score = figure.axes
    shares = sorted(column_shares(machine).items(), key=lambda each: -each[1])
    assert texts(bars) == [name for name, _ in shares]
    assert [bar.get_width() for bar in bars.patches] == pytest.approx([share for _, share in shares])
    values, directions = torch.linalg.eigh(machine.root @ machine.root)
    assert 1 <= len(vectors) <= 3
    names = kl.rows.table.TableEncoding.from_dict(machine.data_info["table"]).feature_names
    for k, axes in enumerate(vectors, start=1):
        entries = dict(zip(names, directions[:, -k].tolist(), strict=True))
        shown = {name: bar.get_width() for name, bar in zip(texts(axes), axes.patches, strict=True)}
        assert max(shown, key=lambda name: abs(shown[name])) == texts(axes)[0]
        assert shown[texts(axes)[0]] > 0
        sign = math.copysign(1, entries[texts(axes)[0]])
        assert shown == pytest.approx({name: sign * entries[name] for name in shown}, abs=1e-9)
        assert f"{100 * float(values[-k] / values.sum()):.2g}"[:2] in axes.get_title(loc="left")
    labels = [text.get_text() for text in spectrum.get_legend().get_texts()]
    assert f"round {machine.round}, chosen" in labels
    line = spectrum.lines[machine.round]
    wanted = np.array(learnt.spectra[machine.round]) / sum(learnt.spectra[machine.round])
    np.testing.assert_allclose(line.get_ydata(), wanted[: len(line.get_ydata())])
    assert score.lines[0].get_ydata().tolist() == machine.scores
    assert score.lines[1].get_xdata().tolist() == [machine.round]


@pytest.mark.slow
def test_of_images_the_picture_is_an_image_and_the_importances_a_list(tmp_path):
    trainer, machine = fit(digits(), learnt := LearntFeatures(), folder=tmp_path)
    shares = feature_importances(machine)
    assert shares == pytest.approx((machine.importances / machine.importances.sum()).tolist())
    rounds = Rounds(1, {k: np.array(each) for k, each in learnt.spectra.items()}, learnt.scores)
    image, *rest = features_figure(rounds, learnt_metric(machine)).axes
    np.testing.assert_allclose(image.images[0].get_array(), np.reshape(shares, (8, 8)))
    assert [axes.images[0].get_array().shape for axes in rest if axes.images] == [(8, 8)] * 6
    assert learnt.path == tmp_path / "version_0" / "figures" / "features.png"
    pixels = np.asarray(Image.open(learnt.path).convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
    assert (pixels[:, -1] == 255).all(), "something runs out of the page on the right"
    svg = learnt.path.with_suffix(".svg").read_text()
    assert "Eigenvalues of M" in svg
    events = EventAccumulator(str(tmp_path / "version_0")).Reload()
    assert len(events.Images("features")) == 1
    ranks = [event.value for event in events.Scalars("features/effective_rank")]
    assert ranks[0] == pytest.approx(64)
    assert ranks[-1] == pytest.approx(effective_rank(spectrum_of(machine)), rel=1e-6)
    assert events.Scalars("features/bandwidth")[-1].value == pytest.approx(machine.kernel.bandwidth, rel=1e-6)
    assert len(ranks) == trainer.current_epoch


def random_metric(d, seed=0):
    root = np.random.default_rng(seed).normal(size=(d, d))
    return root @ root.T / d


def rounds_of(root):
    values = np.linalg.eigvalsh(root)[::-1] ** 2 if root.ndim == 2 else np.sort(root**2)[::-1]
    return Rounds(1, {0: np.ones(len(root)), 1: values}, [1.0, 0.5], "loo")


@pytest.mark.parametrize("kind", ["full", "diagonal"])
def test_colours_are_summed_on_the_diagonal_and_kept_in_eigenvectors(tmp_path, kind):
    root = random_metric(3 * 5 * 4)
    root = root if kind == "full" else np.sqrt((root**2).sum(axis=1))
    metric = LearntMetric(root, [""] * 60, [], (3, 5, 4))
    figure = features_figure(rounds_of(root), metric)
    diagonal = metric.diagonal.reshape(3, 5, 4).sum(axis=0)
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), diagonal / diagonal.sum())
    vectors = [axes.images[0].get_array() for axes in figure.axes[1:] if axes.images]
    assert [each.shape for each in vectors] == ([(5, 4, 3)] * 6 if kind == "full" else [])
    if kind == "full":
        shown = (vectors[0] - 0.5).transpose(2, 0, 1).ravel()
        assert abs(float(shown @ metric.eigenvectors(1)[0][1])) == pytest.approx(np.linalg.norm(shown))
    figure.savefig(tmp_path / "colours.png")


@pytest.mark.parametrize("d", [1, 2, 40])
def test_few_and_many_columns_with_any_name(tmp_path, d):
    names = [f"price in $ of a^b_{j} " + "and so on " * (j % 7) for j in range(d)]
    root = random_metric(d)
    shares = (root**2).sum(axis=1) / (root**2).sum()
    metric = LearntMetric(root, names, list(zip(names, shares.tolist(), strict=True)))
    figure = features_figure(rounds_of(root), metric, "a $ b")
    assert len(figure.axes[0].patches) == min(d, 20)
    assert ("largest 20 of 40 columns" in figure.axes[0].get_title(loc="left")) == (d == 40)
    assert max(map(len, texts(figure.axes[0]))) <= 24
    figure.savefig(tmp_path / "names.png")
    pixels = np.asarray(Image.open(tmp_path / "names.png").convert("RGB"))
    assert (pixels[:, -1] == 255).all()


def test_a_script_that_the_font_lacks_is_no_warning(tmp_path):
    rows = pd.DataFrame({"温度": np.linspace(-1, 1, 60), "b": np.linspace(-1, 1, 60) ** 2})
    data = TableDataModule.from_dataframe(rows.assign(y=np.sin(5 * rows["温度"])), "y")
    learnt = LearntFeatures()
    fit(data, learnt, folder=tmp_path, machine=kl.RecursiveFeatureMachine(rounds=1, by="loo"))
    assert learnt.path.exists()


def test_columns_without_names_are_numbered():
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    data = ArrayDataModule.from_arrays(x, x[:, 1].sin(), x[:5], x[:5, 1].sin())
    machine = fit(data)[1]
    shares = feature_importances(machine)
    assert list(shares) == ["0", "1", "2"]
    assert shares["1"] > 0.9


def test_of_the_plain_kernel_only_the_rounds_are_drawn(tmp_path):
    x = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    y = x.square().sum(dim=1).neg().exp()  # all directions count alike
    data = ArrayDataModule.from_arrays(x, y, x[:5], y[:5])
    _, machine = fit(data, learnt := LearntFeatures(), folder=tmp_path)
    assert machine.round == 0
    assert len(learnt.spectra) > 1
    assert learnt.path.exists()
    assert "the plain kernel" in learnt.path.with_suffix(".svg").read_text()
    assert feature_importances(machine) == pytest.approx({str(j): 0.2 for j in range(5)})


def test_a_constant_function_has_no_features_to_draw(tmp_path, caplog):
    caplog.set_level("INFO", "callbacks")
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    data = ArrayDataModule.from_arrays(x, torch.zeros(40), x[:5], torch.zeros(5))
    _, machine = fit(data, learnt := LearntFeatures(), folder=tmp_path)
    assert machine.round == 0
    assert learnt.path is None
    assert "no metric was learnt" in caplog.text


def test_other_machines_have_nothing_to_show(tmp_path):
    learnt = LearntFeatures()
    trainer, _ = fit(digits(), learnt, folder=tmp_path, machine=kl.KernelMachine("laplacian", batch_size=40), epochs=1)
    assert not [name for name in trainer.callback_metrics if name.startswith("features/")]
    assert learnt.path is None
    assert learnt.state_dict() == {}
    assert not list(tmp_path.rglob("features*"))


def test_nothing_is_written_without_a_logger_or_under_fast_dev_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(table(), learnt := LearntFeatures())
    assert learnt.path is None
    fit(table(), learnt, folder=tmp_path, fast_dev_run=True)
    assert learnt.path is None
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_resumed_run_has_the_spectra_of_all_rounds(tmp_path):
    whole, first, rest = LearntFeatures(), LearntFeatures(), LearntFeatures()
    fit(digits(), whole)
    fit(digits(), first, epochs=2)[0].save_checkpoint(tmp_path / "two.ckpt")
    assert sorted(first.spectra) == [0, 1]
    fit(digits(), rest, ckpt_path=tmp_path / "two.ckpt")
    assert rest.spectra == whole.spectra
    assert rest.scores == whole.scores


@pytest.mark.parametrize(
    "spectra", [None, {"1": [1.0]}, {1: 2.0}, {1: []}, {1: [math.nan]}, {1: [-1.0]}, {1: ["x"]}], ids=json.dumps
)
def test_damaged_spectra_are_refused(spectra):
    with pytest.raises(kl.CheckpointError, match="spectr"):
        LearntFeatures().load_state_dict({"spectra": spectra})


def test_the_picture_follows_the_weights_that_are_tested(tmp_path):
    data = digits(validation=0.3)
    earlier = fit(data, epochs=1)[1]
    trainer, machine = fit(data, learnt := LearntFeatures(), folder=tmp_path)
    assert machine.round > earlier.round == 0
    picture = learnt.path.read_bytes()
    trainer.test(machine, datamodule=data, verbose=False)
    assert learnt.path.read_bytes() == picture
    trainer.test(earlier, datamodule=data, verbose=False)
    assert learnt.path.read_bytes() != picture
    assert "the plain kernel" in learnt.path.with_suffix(".svg").read_text()
    assert learnt.scores == machine.scores
