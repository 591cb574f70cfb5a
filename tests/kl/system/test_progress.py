"""Reports of long work."""

import logging

from kl.system import progress
from kl.system.progress import Reports


def test_a_listener_gets_every_report_and_nothing_is_logged(caplog):
    said = []
    reports = Reports(said.append, logging.getLogger("mine"))
    for i in range(3):
        reports(i)
    assert said == [0, 1, 2]
    assert not caplog.messages


def test_without_one_a_report_is_logged_every_few_seconds(caplog, monkeypatch):
    times = iter([0.0, 4.9, 5.0, 5.0, 9.9, 11.0, 11.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(times))
    caplog.set_level(logging.INFO, logger="mine")
    reports = Reports(None, logging.getLogger("mine"))
    for i in range(4):
        reports(i)
    assert caplog.messages == ["1", "3"]
