"""Data modules that fail on one rank of a run, or wait only seconds, for `--data user_data:Name` in tests."""

import os
import time
from datetime import timedelta

import kl.distributed.strategy
from callbacks import ExactInterpolation
from datamodules import DigitsDataModule

kl.distributed.strategy.TIMEOUT = timedelta(
    seconds=8
)  # of a collective, for Impatient, Hanging, HangingStep and SlowLimit


def on_second():
    return os.environ.get("LOCAL_RANK") == "1"


class Impatient(DigitsDataModule):
    """Nothing is wrong with it."""


class Missing(DigitsDataModule):
    """Cannot be read on the second rank."""

    def load(self):
        if on_second():
            raise kl.InputError("data must be there")
        return super().load()


class Broken(DigitsDataModule):
    """Has a mistake that shows on the second rank."""

    def load(self):
        if on_second():
            raise ZeroDivisionError("a mistake")
        return super().load()


class Wrong(DigitsDataModule):
    """Cannot be read on any rank."""

    def load(self):
        raise kl.InputError("data must be there")


class Hanging(DigitsDataModule):
    """Comes to no end on the second rank."""

    def load(self):
        if on_second():
            time.sleep(1000)
        return super().load()


class HangingStep(DigitsDataModule):
    """Comes to no end on the second rank, in the third epoch."""

    def load(self):
        step = kl.KernelMachine.training_step

        def hang(machine, *args):
            if on_second() and machine.current_epoch == 2:
                time.sleep(1000)
            return step(machine, *args)

        kl.KernelMachine.training_step = hang
        return super().load()


class SlowLimit(DigitsDataModule):
    """Whose exact limit takes the first rank longer than a collective may take."""

    def load(self):
        find = ExactInterpolation._find

        def slow(*args):
            time.sleep(kl.distributed.strategy.TIMEOUT.total_seconds() + 4)
            return find(*args)

        ExactInterpolation._find = slow
        return super().load()
