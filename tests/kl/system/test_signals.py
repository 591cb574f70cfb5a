"""A signal is answered also where Python drops exceptions, or cannot answer it."""

import signal
import subprocess
import sys
import weakref

import pytest

from kl.system.signals import LastingInterrupt

WAITING = """
import os, signal, threading
import torch.distributed as dist
from kl.system.signals import signals_end

signal.signal(signal.SIGTERM, signal.default_int_handler)
threading.Timer(1, os.kill, (os.getpid(), signal.{signal})).start()
with signals_end(lambda: print("left", flush=True)):
    dist.TCPStore("127.0.0.1", 0, world_size=2, is_master=True)  # for another that does not come
"""


@pytest.mark.parametrize("name", ["SIGINT", pytest.param("SIGTERM", marks=pytest.mark.slow)])
def test_a_signal_ends_a_process_that_waits_for_others(name):
    code = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{WAITING.format(signal=name)}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "left\n", "")


@pytest.fixture
def dropped(monkeypatch):
    """The exceptions that Python drops."""
    found = []
    monkeypatch.setattr(sys, "unraisablehook", found.append)
    return found


@pytest.fixture
def interrupt():
    handler = LastingInterrupt()
    before = signal.signal(signal.SIGINT, handler)
    yield handler
    signal.signal(signal.SIGINT, before)


class InterruptedDict(dict):
    def __delitem__(self, key):
        signal.raise_signal(signal.SIGINT)
        super().__delitem__(key)


class InterruptedObject:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)


def drop_a_weak_key():
    weak, key = weakref.WeakKeyDictionary(), LastingInterrupt()
    weak.data = InterruptedDict()
    weak[key] = 1
    del key


def drop_an_object():
    InterruptedObject()


@pytest.mark.parametrize("drop", [drop_a_weak_key, drop_an_object])
def test_an_interrupt_in_a_finalizer_is_raised_at_the_next_check(interrupt, dropped, drop):
    drop()
    assert (interrupt.came, dropped) == (True, [])
    with pytest.raises(KeyboardInterrupt):
        interrupt.check()


def test_any_other_interrupt_is_raised_at_once(interrupt):
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        interrupt.check()
