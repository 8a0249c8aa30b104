"""Ctrl-C: the first is a request, an echo of it is nothing, the second interrupts."""

import os
import signal

import pytest

from pipeline.training import interrupt


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_first_echo_and_second(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT)
    with interrupt.interrupt_as_request() as requested:
        assert not requested()
        ctrl_c()
        assert requested()
        ctrl_c()
        monkeypatch.setattr(interrupt, "ECHO_SECONDS", -1.0)
        with pytest.raises(KeyboardInterrupt):
            ctrl_c()
    assert signal.getsignal(signal.SIGINT) is before
