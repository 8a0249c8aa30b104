"""Rank 0's long jobs: their result, their error, and leaving in the middle."""

import threading

import pytest

from pipeline.distributed import together_while


class Asked(BaseException):
    """As StopRequestedError."""


def test_the_result_or_the_error_comes_back() -> None:
    assert together_while(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        together_while(lambda: 1 / 0)


def test_a_job_is_left_when_somebody_asks() -> None:
    end = threading.Event()

    def leave() -> None:
        raise Asked

    with pytest.raises(Asked):
        together_while(lambda: end.wait(60), leave)
    end.set()
