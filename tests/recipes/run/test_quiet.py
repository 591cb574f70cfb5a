"""Training beside a command's own lines, and the clock for it."""

import doctest
import logging

import pytest

import kl.system.clock
from kl.system.clock import fastest, seconds_of
from recipes.run.quiet import interrupts_raised, quiet_loggers, quiet_trainer


def test_a_quiet_trainer_writes_and_shows_nothing():
    trainer = quiet_trainer(3, "cpu", limit_val_batches=0)
    assert (trainer.max_epochs, trainer.num_devices, trainer.num_sanity_val_steps) == (3, 1, 0)
    assert (trainer.logger, trainer.checkpoint_callback, trainer.progress_bar_callback) == (None, None, None)
    assert trainer.limit_val_batches == 0
    assert quiet_trainer(3, "cpu", num_sanity_val_steps=1).num_sanity_val_steps == 1


def test_an_interrupted_trainer_is_an_interrupted_command():
    with pytest.raises(KeyboardInterrupt), interrupts_raised():
        raise SystemExit(0)
    with pytest.raises(ZeroDivisionError), interrupts_raised():
        raise ZeroDivisionError


def test_loggers_are_quiet_for_a_while():
    logger = logging.getLogger("kl.some")
    logger.setLevel(logging.INFO)
    with quiet_loggers("kl.some", "kl.other"):
        assert logger.level == logging.getLogger("kl.other").level == logging.ERROR
    assert (logger.level, logging.getLogger("kl.other").level) == (logging.INFO, logging.NOTSET)


def test_the_fastest_of_a_few_runs(monkeypatch):
    clock = iter([0.0, 3.0, 10.0, 11.0, 20.0, 22.0] * 2)
    monkeypatch.setattr("kl.system.clock.time.perf_counter", lambda: next(clock))
    done = []
    assert seconds_of(lambda: done.append(1), 3) == [3.0, 1.0, 2.0]
    assert fastest(lambda: done.append(1), 3) == 1.0
    assert len(done) == 6


def test_the_example_runs():
    assert doctest.testmod(kl.system.clock) == (0, 1)
