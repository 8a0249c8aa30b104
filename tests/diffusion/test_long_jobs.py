"""Rank 0's long jobs: their result, their error, and leaving in the middle."""

import threading

import pytest

from pipeline.diffusion.long_jobs import together_while
from pipeline.distributed import current_world


class Asked(BaseException):
    """As StopRequestedError."""


def test_the_result_or_the_error_comes_back() -> None:
    assert together_while(lambda: 7, current_world()) == 7
    with pytest.raises(ZeroDivisionError):
        together_while(lambda: 1 / 0, current_world())


def test_a_job_is_left_when_somebody_asks() -> None:
    end = threading.Event()

    def leave() -> None:
        raise Asked

    with pytest.raises(Asked):
        together_while(lambda: end.wait(60), current_world(), leave)
    end.set()
