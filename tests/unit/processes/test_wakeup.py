"""A signal or a poke ends the wait of the main thread, including one that came before the wait."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from worker.processes.wakeup import Wakeup


@pytest.fixture
def heard(monkeypatch):
    """The signals that the handler received."""
    numbers: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: numbers.append(number))
    yield numbers
    signal.signal(signal.SIGUSR1, before)


def test_a_signal_ends_the_wait_after_its_handler(heard):
    with Wakeup() as wakeup:
        timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        wakeup.wait()
        timer.join()

    assert heard == [signal.SIGUSR1]


def test_a_signal_before_the_wait_is_not_missed(heard):
    with Wakeup() as wakeup:
        os.kill(os.getpid(), signal.SIGUSR1)
        wakeup.wait()


def test_a_poke_from_another_thread_ends_the_wait():
    with Wakeup() as wakeup:
        thread = threading.Timer(0.2, wakeup.poke)
        thread.start()
        wakeup.wait()
        thread.join()


def test_many_pokes_end_one_wait():
    with Wakeup() as wakeup:
        for _ in range(200_000):  # more than the socket buffer holds
            wakeup.poke()
        wakeup.wait()


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 0.05])
def test_without_a_signal_the_wait_lasts_the_given_time(seconds):
    with Wakeup() as wakeup:
        began = time.monotonic()
        wakeup.wait(seconds)

    assert time.monotonic() - began >= max(0.0, seconds)


def test_the_previous_wakeup_descriptor_is_restored():
    before = signal.set_wakeup_fd(-1)
    with Wakeup(), Wakeup():
        pass

    assert signal.set_wakeup_fd(before) == -1
