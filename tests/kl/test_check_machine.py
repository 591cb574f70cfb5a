"""Every solver keeps the contract of a machine, and `check_machine` finds a machine that does not."""

import pytest
import torch

import kl
from kl import Gaussian, Laplacian
from kl.testing import check_machine

MACHINES = {
    "eigenpro": lambda: kl.KernelMachine(Laplacian(1.0)),
    "eigenpro, ridge": lambda: kl.KernelMachine(Gaussian(2.0), ridge=0.1, batch_size=32),
    "plain SGD": lambda: kl.KernelMachine(Laplacian(1.0), top_q=0, batch_size=16),
    "eigenpro3": lambda: kl.GeneralKernelMachine(Laplacian(1.0), centers=30, projection_period=1),
    "eigenpro4": lambda: kl.GeneralKernelMachine(Laplacian(1.0), centers=30, batch_size=16, projection_period=3),
    "pcg": lambda: kl.ConjugateGradientMachine(Laplacian(1.0)),
}


@pytest.mark.parametrize("name", MACHINES)
def test_contract(name):
    check_machine(MACHINES[name])


class OffNorm(kl.KernelMachine):
    @property
    def sq_norm_per_class(self):
        return 1.1 * super().sq_norm_per_class


class OffScores(kl.KernelMachine):
    def forward(self, x):
        return super().forward(x) + 1.0


class TwoSteps(kl.KernelMachine):
    def training_step(self, batch, batch_idx):
        super().training_step(batch, batch_idx)
        super().training_step(batch, batch_idx)


class Drifting(kl.KernelMachine):
    """Its weights hang on how often this process has trained before."""

    begun = 0

    def on_train_start(self):
        super().on_train_start()
        Drifting.begun += 1
        with torch.no_grad():
            self.alpha += 1e-9 * Drifting.begun


class Forgetful(kl.KernelMachine):
    shift = 0.0

    def prepare(self, *data):
        super().prepare(*data)
        self.shift = 1e-6

    def forward(self, x):
        return super().forward(x) + self.shift


class Lost(kl.KernelMachine):
    def on_train_epoch_end(self):
        super().on_train_epoch_end()
        with torch.no_grad():
            self.alpha.fill_(torch.nan)


class Still(kl.KernelMachine):
    def on_train_start(self):
        super().on_train_start()
        self.run.optimizer.param_groups[0]["lr"] = 1e-300


@pytest.mark.parametrize(
    ("cls", "failure"),
    [
        (OffNorm, "has an RKHS norm that is 0.0.* of it off"),
        (OffScores, "predicts 1 beside"),
        (TwoSteps, "made .* steps; the epochs have .* of batch_rows=30 rows"),
        (Drifting, "resumed after half of its epochs, ends with weights that are .* off"),
        (Forgetful, "loaded from its checkpoint, predicts other scores"),
        (Lost, "has weights that are not finite"),
        (Still, "has a training mse of 0.333, and f = 0 has 0.333"),
    ],
)
def test_faults_are_found(cls, failure):
    with pytest.raises(AssertionError, match=rf"^{cls.__name__} {failure}"):
        check_machine(lambda: cls(Laplacian(1.0), batch_size=30))


def test_a_machine_that_stays_far_from_its_limit_is_found():
    with pytest.raises(AssertionError, match=r"is 0\.\d+ \|f\*\| from the exact limit after 2 epochs; at most 1e-06"):
        check_machine(lambda: kl.KernelMachine(Laplacian(1.0)), limit_epochs=2, distance=1e-6)


def test_on_rows_of_ones_own():
    x, y = torch.rand(40, 3, generator=torch.Generator().manual_seed(0)), torch.arange(80.0).view(40, 2) / 80
    check_machine(lambda: kl.KernelMachine(Laplacian(1.0), top_q=5), x, y, limit_epochs=300)
