"""The points of `kl reproduce networks`: kernel machines and networks on the same rows."""

from __future__ import annotations

from dataclasses import replace

from recipes.reproduce.points.exact import Exact
from recipes.reproduce.points.fit import Fit
from recipes.reproduce.points.network import Network
from recipes.reproduce.points.patch_exact import PatchExact, PatchSpec
from recipes.reproduce.points.sample import KernelSpec, Sample
from recipes.reproduce.points.tuned_network import TunedNetwork
from recipes.reproduce.setting import Setting
from recipes.reproduce.shared_points import EPOCHS, exact, whole, whole_fit
from recipes.reproduce.sweep.point import Point, Result, Results

NOISES = (0.0, 0.1, 0.2, 0.4)
RATES = (0.03, 0.1)
"""Learning rates that are tried for the convolutional network."""
AUGMENT = {"mnist": "shift:2", "fashion-mnist": "shift:2,flip", "digits": "shift:1"}
"""Changes that keep the class: a mirrored digit is another sign."""


def noisy(setting: Setting, data: str, kernel: KernelSpec) -> Exact:
    """The exact interpolant of fewer rows at each level of noise."""
    n = setting.choose(tiny=150, quick=600, full=10_000)
    return exact(setting, data, n, kernel, 0, NOISES)


def fewer(setting: Setting, data: str) -> Sample:
    """The rows of `noisy`."""
    return noisy(setting, data, setting.kernels(data)[0]).sample


def every(setting: Setting, data: str) -> Sample:
    """The rows of the whole set."""
    return whole(setting, data, setting.kernels(data)[0]).sample


def fewer_fit(setting: Setting, data: str, kernel: KernelSpec) -> Fit:
    """EigenPro on the rows of `noisy`, without noise."""
    return Fit(sample=fewer(setting, data), kernel=kernel, epochs=setting.choose(tiny=3, quick=EPOCHS, full=EPOCHS))


def on_patches(setting: Setting, data: str) -> PatchExact:
    """The exact interpolant of the rows of `noisy` on features of image patches, at each level of noise."""
    small = setting.data(data) == "digits"
    spec = PatchSpec(count=32, size=3) if small else PatchSpec(count=1024, pool=7, stride=8)
    return PatchExact(
        sample=fewer(setting, data),
        patches=spec,
        kernel=KernelSpec(name="gaussian"),
        bandwidth_factor=0.5,
        noises=NOISES,
    )


def mlp(setting: Setting, sample: Sample, noise: float, epochs: int) -> Network:
    """A fully connected network at one learning rate, with batches small enough for many steps an epoch."""
    return Network(
        sample=sample,
        architecture="mlp",
        widths=(512, 512),
        noise=noise,
        epochs=epochs,
        batch_size=setting.choose(tiny=16, quick=64, full=256),
    )


def whole_mlp(setting: Setting, data: str) -> Network:
    """The fully connected network on the whole set."""
    return mlp(setting, every(setting, data), 0.0, setting.choose(tiny=5, quick=10, full=20))


def noisy_mlp(setting: Setting, data: str, noise: float) -> Network:
    """The fully connected network on the rows of `noisy`."""
    return mlp(setting, fewer(setting, data), noise, setting.choose(tiny=5, quick=20, full=60))


def cnn(
    setting: Setting, data: str, sample: Sample, epochs: int, noise: float = 0.0, augmented: bool = False
) -> TunedNetwork:
    """A convolutional network whose learning rate and epoch are chosen on held-out rows."""
    small = setting.data(data) == "digits"
    return TunedNetwork(
        sample=sample,
        widths=(8, 16) if small else (24, 48, 96),
        learning_rates=RATES,
        epochs=epochs,
        noise=noise,
        augment=AUGMENT[setting.data(data)] if augmented else None,
        batch_size=setting.choose(tiny=16, quick=32, full=128),
    )


def noisy_cnn(setting: Setting, data: str, noise: float, augmented: bool = False) -> TunedNetwork:
    """The tuned network on the rows of `noisy`; with noise, which it should not fit, it has fewer epochs."""
    full = 12 if noise else 16
    epochs = setting.choose(tiny=5, quick=full, full=full)
    return cnn(setting, data, fewer(setting, data), epochs, noise, augmented)


def like_noisy(
    setting: Setting, results: Results, data: str, augmented: bool, sample: Sample, epochs: int
) -> TunedNetwork:
    """A network with the learning rate that held-out rows choose for `noisy_cnn` without noise; its last epoch counts.

    At its last epoch the learning rate reaches 0, so that an earlier one is hardly better.
    """
    rate = results[noisy_cnn(setting, data, 0.0, augmented)]["learning_rate"]
    point = cnn(setting, data, sample, epochs, augmented=augmented)
    return replace(point, learning_rates=(rate,), held_out=0.0)


def whole_cnn(setting: Setting, results: Results, data: str, augmented: bool) -> TunedNetwork:
    """The network on the whole set."""
    epochs = setting.choose(tiny=3, quick=6, full=6)
    return like_noisy(setting, results, data, augmented, every(setting, data), epochs)


def kernel_seconds(result: Result) -> float:
    """Seconds of training of `on_patches`: all features, those of the test rows too, and the solve."""
    return float(result["extraction_seconds"] + result["levels"][0]["solve_seconds"])


def hurried_cnn(setting: Setting, results: Results, data: str, augmented: bool) -> TunedNetwork | None:
    """The network with as many epochs as it does in the seconds of `on_patches`; None if that is none.

    An epoch's seconds are the mean of `noisy_cnn`; if all epochs of that network end in the seconds, it is that one.
    """
    calm = noisy_cnn(setting, data, 0.0, augmented)
    each = results[calm]["seconds_per_epoch"]
    epochs = int(kernel_seconds(results[on_patches(setting, data)]) / (sum(each) / len(each)))
    if epochs >= calm.epochs:
        return calm
    return like_noisy(setting, results, data, augmented, calm.sample, epochs) if epochs else None


def points(setting: Setting, results: Results, names: tuple[str, ...]) -> list[Point]:
    """All models on whole sets without noise, and on fewer rows at all levels of noise.

    The networks that take a learning rate or the seconds of a kernel machine from results come once these are known.
    """
    found: list[Point] = []
    for data in setting.distinct(*names):
        for kernel in setting.kernels(data):
            found += [make(setting, data, kernel) for make in (whole_fit, whole, fewer_fit, noisy)]
        found += [on_patches(setting, data), whole_mlp(setting, data)]
        for noise in NOISES:
            found += [noisy_mlp(setting, data, noise), noisy_cnn(setting, data, noise)]
        for augmented in (False, True):
            calm = noisy_cnn(setting, data, 0.0, augmented)
            found.append(calm)
            if calm in results and on_patches(setting, data) in results:
                found.append(whole_cnn(setting, results, data, augmented))
                hurried = hurried_cnn(setting, results, data, augmented)
                if hurried is not None:
                    found.append(hurried)
    return found
