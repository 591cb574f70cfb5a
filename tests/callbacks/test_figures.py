"""The figures: what is drawn, from which numbers, and that files hold more than an empty page."""

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning.loggers import CSVLogger
from training import quiet_trainer

import kl
from callbacks import ConfusionMatrix, ConvergenceFigure, ExactInterpolation, Spectrum, WorstErrors, log_figure
from callbacks.confusion import confusion_figure
from callbacks.convergence import convergence_figure
from callbacks.figures import as_svg, new_figure
from callbacks.scores import val_scores as scores_of
from callbacks.spectrum import POINTS, damped_eigenvalues, plain_spectrum, spectrum_figure
from callbacks.worst_errors import error_margins, images_figure, largest_margins, largest_residuals
from datamodules import ArrayDataModule, DigitsDataModule
from kl.eigenpro.preconditioner import damping_weights


def fit(each, folder=None, *, epochs=2, data=None, ckpt_path=None, **options):
    data = data or DigitsDataModule(train_size=100, test_size=200)
    logger = False if folder is None else CSVLogger(folder)
    trainer = quiet_trainer(epochs, logger=logger, log_every_n_steps=1, callbacks=each, **options)
    machine = kl.KernelMachine("laplacian", batch_size=50)
    trainer.fit(machine, datamodule=data, ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return trainer, machine, data


def assert_is_a_picture(path, width=400):
    pixels = np.asarray(Image.open(path).convert("RGB"))
    assert pixels.shape[1] >= width
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
    assert (pixels.std(axis=2) > 10).any() or "worst" in path.name  # grey images have no colour
    assert (pixels[:, -1] == 255).all(), "something runs out of the page on the right"


@pytest.mark.slow
def test_figures_are_written_and_both_share_one_pass_over_the_test_set(tmp_path, monkeypatch):
    passes = []

    class Machine(kl.KernelMachine):
        def forward(self, x):
            passes.append(len(x))
            return super().forward(x)

    monkeypatch.setattr(kl, "KernelMachine", Machine)
    each = [ConfusionMatrix(), WorstErrors(count=5), Spectrum(), ConvergenceFigure()]
    each.append(ExactInterpolation(cache_dir=tmp_path / "cache"))
    style = dict(matplotlib.rcParams)
    _, machine, data = fit(each, tmp_path, limit_val_batches=0)
    assert passes == [200]
    assert dict(matplotlib.rcParams) == style
    figures = tmp_path / "lightning_logs" / "version_0" / "figures"
    assert {path.name for path in figures.iterdir()} == {
        "val_confusion.png",
        "val_worst_errors.png",
        "precond_eigenvalues.png",
        "convergence.png",
    }
    for path in figures.iterdir():
        assert_is_a_picture(path)

    with torch.no_grad():
        scores = machine(data.test_set.x)
    labels, predicted = data.test_set.y.argmax(dim=1), scores.argmax(dim=1)
    matrix = torch.zeros(10, 10, dtype=torch.long)
    for true, guess in zip(labels, predicted, strict=True):
        matrix[true, guess] += 1
    assert torch.equal(each[0].matrix, matrix)
    rows = [error["row"] for error in each[1].errors]
    assert len(rows) == 5
    margins = scores.amax(dim=1) - scores[torch.arange(200), labels]
    assert all(predicted[row] != labels[row] for row in rows)
    assert margins[rows].tolist() == sorted(margins.tolist(), reverse=True)[:5]


def test_scores_follow_the_machine_and_the_step():
    trainer, machine, data = fit([])
    first = scores_of(trainer, machine)
    assert scores_of(trainer, machine) is first
    other = kl.KernelMachine("laplacian", batch_size=50)
    trainer.fit_loop.max_epochs = 3
    trainer.fit(other, datamodule=data)
    assert not torch.equal(scores_of(trainer, other), first)


def test_no_images_no_errors_no_figures(tmp_path, caplog):
    caplog.set_level("INFO", "callbacks")
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    data = ArrayDataModule.from_arrays(x, torch.arange(30) % 2, x, torch.arange(30) % 2)
    fit([worst := WorstErrors()], tmp_path / "flat", data=data)
    assert {error["predicted"] for error in worst.errors} <= {"0", "1"}  # found, though there is nothing to draw
    easy = DigitsDataModule(train_size=1000, test_size=20)
    fit([worst := WorstErrors()], tmp_path / "easy", data=easy, epochs=3)
    assert worst.errors == []
    assert "no test image is misclassified" in caplog.text
    assert not list(tmp_path.rglob("*.png"))
    with pytest.raises(kl.InputError, match="count must be"):
        WorstErrors(count=0)


def test_margins():
    scores = torch.tensor([[0.9, 0.1], [0.2, 0.7], [0.4, 0.5]])
    assert error_margins(scores, torch.tensor([0, 0, 0])).tolist() == pytest.approx([0, 0.5, 0.1])


def test_the_largest_margins_and_residuals():
    scores = torch.tensor([[0.9, 0.1], [0.2, 0.7], [0.4, 0.5], [0.1, 0.3]])
    found = largest_margins(scores, torch.tensor([0, 0, 0, 1]), ["no", "yes"], 5)
    assert [(each["row"], each["true"], each["predicted"]) for each in found] == [(1, "no", "yes"), (2, "no", "yes")]
    assert [each["by"] for each in found] == pytest.approx([0.5, 0.1])
    predicted, true = torch.tensor([[1.0, 1], [4, 5], [0, 0]]), torch.tensor([[1.0, 2], [1, 1], [0, 0]])
    first, second = largest_residuals(predicted, true, 2)
    assert first == {"row": 1, "true": [1.0, 1.0], "predicted": [4.0, 5.0], "by": 5.0}
    assert second["row"] == 0


def test_the_worst_errors_of_regression_are_in_the_targets_unit():
    x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    y = 1000 + 50 * x.sum(dim=1)
    data = ArrayDataModule.from_arrays(x[:40], y[:40], x[40:], y[40:])
    _, machine, _ = fit([worst := WorstErrors(count=3)], data=data)
    residuals = (machine.in_target_units(machine(data.test_set.x)).double() - y[40:, None]).abs().flatten().tolist()
    assert [each["by"] for each in worst.errors] == pytest.approx(sorted(residuals, reverse=True)[:3], rel=1e-4)
    for each in worst.errors:
        assert each["true"] == pytest.approx([y[40 + each["row"]].item()], rel=1e-5)


@pytest.mark.parametrize("s", [1, 2, 150, 5000])
def test_a_kept_spectrum_is_one_of_few_points(s):
    values, q = np.arange(1, s + 1.0) ** -2.0, s // 3
    found = plain_spectrum(values, q)
    index = found["index"]
    assert (found["s"], found["top_q"]) == (s, q)
    assert len(index) <= POINTS
    assert index == sorted(set(index))
    assert {1, s, *([q] if q else [])} <= set(index)
    assert found["eigenvalue"] == pytest.approx([float(i) ** -2.0 for i in index], rel=1e-14)


def test_a_name_is_no_formula(tmp_path):
    names = [r"$\x$", "$a", "b_c^d"]
    confusion_figure(torch.ones(3, 3, dtype=torch.long), names).savefig(tmp_path / "confusion.png")
    assert_is_a_picture(tmp_path / "confusion.png", width=200)
    images_figure(torch.rand(2, 1, 8, 8), [r"$\x$, not $a$"] * 2).savefig(tmp_path / "worst.png")
    assert_is_a_picture(tmp_path / "worst.png")


def test_damped_eigenvalues_are_those_that_the_preconditioner_leaves():
    values = np.array([1.0, 0.3, 0.1, 0.05])
    kept = torch.from_numpy(values[:3])
    left = kept - kept**2 * damping_weights(torch.from_numpy(values), 3)  # lambda (1 - D lambda)
    assert damped_eigenvalues(values, 3)[:3] == pytest.approx(left.numpy())
    assert damped_eigenvalues(values, 3)[3] == 0.05
    assert damped_eigenvalues(values, 0).tolist() == values.tolist()


@pytest.mark.parametrize("top_q", [0, 1, 50])
def test_spectrum_with_zeros_and_without_damping(tmp_path, top_q):
    values = np.concatenate([np.arange(1, 51.0) ** -2.0, np.zeros(3)])
    spectrum_figure(values, top_q).savefig(tmp_path / "spectrum.png")
    assert_is_a_picture(tmp_path / "spectrum.png")


@pytest.mark.parametrize("c", [2, 10, 60])
def test_confusion_of_few_and_many_classes(tmp_path, c):
    matrix = torch.eye(c, dtype=torch.long) * 90 + 1
    matrix[0] = 0  # a class that the test set does not have
    confusion_figure(matrix, [f"class number {k}" for k in range(c)]).savefig(tmp_path / "confusion.png")
    assert_is_a_picture(tmp_path / "confusion.png", width=200)


def test_confusion_of_names_that_are_long_or_cannot_be_drawn(tmp_path):
    names = ["a" * 5000, "two\nlines \ud800 \x01", " ".join(["many words"] * 9), ""]
    figure = confusion_figure(torch.eye(4, dtype=torch.long), names)
    svg = as_svg(figure)  # constrained layout warns if the axes have no room
    assert "\x01" not in svg
    figure.savefig(tmp_path / "confusion.png")
    assert_is_a_picture(tmp_path / "confusion.png")
    axes, wide = figure.axes[0], figure.bbox.width
    assert axes.get_window_extent().width > 0.3 * wide
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["a" * 12 + "…" + "a" * 11, "two lines", "many words m… many words", ""]
    assert all(label.get_window_extent().x0 >= 0 for label in axes.get_yticklabels())


@pytest.mark.parametrize(("count", "channels"), [(1, 1), (3, 3), (17, 3)])
def test_grids_of_images(tmp_path, count, channels):
    images_figure(torch.rand(count, channels, 8, 8), ["automobile, not airplane\nby 1.23"] * count).savefig(
        tmp_path / "worst.png"
    )
    assert_is_a_picture(tmp_path / "worst.png")


def test_convergence_with_whatever_is_known(tmp_path):
    history = {"train/mse": [(1, 0.1), (2, 0.01)], "rkhs/norm": [(1, 3.0), (2, 4.0)]}
    everything = {**history, "val/error": [(2, 0.1)], "exact/distance": [(1, 1.0), (2, 0.5)]}
    limits = {"exact_rkhs_norm": 5.0, "exact_val_error": 0.05, "exact_val_mse": 0.2}
    for number, (points, known) in enumerate(((history, {}), (everything, limits), (history, limits))):
        figure = convergence_figure(points, known, method="another solver")
        names = {text.get_text() for axes in figure.axes for each in [axes.get_legend()] if each for text in each.texts}
        assert "EigenPro" not in names
        assert ("another solver" in names) == bool(known)
        dashed = [line for axes in figure.axes for line in axes.lines if line.get_linestyle() == "--"]
        assert [line.get_ydata()[0] for line in dashed] == [[], [0.05, 5.0], [0.2, 5.0]][number]
        figure.savefig(tmp_path / f"{number}.png")
        assert_is_a_picture(tmp_path / f"{number}.png")


def test_convergence_history_is_complete_after_a_resume(tmp_path):
    first, rest = ConvergenceFigure(), ConvergenceFigure()
    trainer, machine, _ = fit([first])
    assert [epoch for epoch, _ in first.history["train/mse"]] == [1, 2]
    assert first.history["train/mse"][-1][1] == machine.train_metrics["train/mse"]
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    fit([rest], epochs=3, ckpt_path=tmp_path / "two.ckpt")
    for tag in ("train/mse", "val/error", "rkhs/norm"):
        assert [epoch for epoch, _ in rest.history[tag]] == [1, 2, 3]
        assert rest.history[tag][:2] == first.history[tag]


def test_only_rank_zero_writes(tmp_path, monkeypatch):
    trainer, _, _ = fit([], tmp_path)
    reads = []
    monkeypatch.setattr(type(trainer), "log_dir", property(lambda self: reads.append(1) or str(tmp_path / "run")))
    monkeypatch.setattr(type(trainer), "is_global_zero", property(lambda self: False))
    figure = new_figure(2, 2)
    figure.add_subplot()
    log_figure(trainer, "a/b", figure)
    assert reads == [1]  # a collective: on every rank
    assert not (tmp_path / "run").exists()
    assert not figure.axes
