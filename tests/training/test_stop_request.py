"""Signals as requests: which one is remembered, echoes, a second Ctrl-C, others' handlers."""

import os
import signal
from typing import Any

import pytest

from pipeline.training import stop_request
from pipeline.training.stop_request import StopRequestedError, stop_requests


@pytest.mark.parametrize("number", stop_request.SIGNALS)
def test_the_first_signal_is_remembered(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_requests() as stop:
        stop.leave_if_asked()
        assert not stop() and stop.what is None
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop() and stop.what == f"signal {number.name}"
        with pytest.raises(StopRequestedError, match=number.name):
            stop.leave_if_asked()
    assert signal.getsignal(number) is before


def test_an_echo_of_ctrl_c_is_nothing_and_a_second_one_interrupts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with stop_requests():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        monkeypatch.setattr(stop_request, "ECHO_SECONDS", -1.0)
        os.kill(os.getpid(), signal.SIGUSR2)  # only Ctrl-C is a person who has had enough
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_after_another_request_is_a_first_ctrl_c() -> None:
    with stop_requests() as stop:
        os.kill(os.getpid(), signal.SIGUSR2)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.what == "signal SIGUSR2"


def test_the_handlers_of_another_library_wait_until_afterwards() -> None:
    called: list[int] = []

    def theirs(number: int, frame: Any) -> None:
        called.append(number)

    before = signal.signal(signal.SIGUSR2, theirs)
    try:
        with stop_requests() as stop:
            os.kill(os.getpid(), signal.SIGUSR2)
            assert stop() and called == []
        os.kill(os.getpid(), signal.SIGUSR2)
        assert called == [signal.SIGUSR2]
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_one_inside_another_is_the_same() -> None:
    with stop_requests() as outer:
        os.kill(os.getpid(), signal.SIGTERM)
        with stop_requests() as inner:
            assert inner is outer and inner()
        os.kill(os.getpid(), signal.SIGUSR2)  # still handled: the default would end the process
