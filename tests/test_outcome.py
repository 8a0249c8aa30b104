"""Exit statuses: can trying again help?"""

import errno

import pytest

from pipeline.distributed import RankFailedError, RendezvousError
from pipeline.outcome import FINISHED, Outcome, exit_status
from pipeline.training.guards import NonFiniteError
from pipeline.training.stop_request import StopRequestedError


def ending_with(error: BaseException) -> int:
    def work() -> Outcome:
        raise error

    return exit_status(work)


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (FINISHED, 0),
        (Outcome("signal SIGUSR2"), 75),
        (Outcome("rank 2 on node1 left on signal SIGTERM"), 75),
        (Outcome("signal SIGINT"), 130),
    ],
)
def test_outcomes(outcome: Outcome, status: int) -> None:
    assert exit_status(lambda: outcome) == status
    assert outcome.finished == (status == 0)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("a mistake"), 1),
        (OSError(errno.ENOSPC, "the disk is full"), 1),
        (OSError(errno.EIO, "the file server is ill"), 75),
        (OSError(errno.ESHUTDOWN, "evicted from the file server"), 75),
        (OSError(errno.EMFILE, "too many open files"), 75),
        (OSError("without a number"), 1),
        (NonFiniteError(3, "the loss is nan"), 1),
        (RankFailedError(2, "ValueError: a mistake", is_mistake=True), 1),
        (RankFailedError(2, "OSError: ill", is_mistake=True, errno=errno.EIO), 75),
        (RankFailedError(2, "KeyError: 'x'", is_mistake=False), 70),
        (RendezvousError("nobody came"), 75),
        (StopRequestedError("signal SIGUSR2"), 75),
        (StopRequestedError("signal SIGINT"), 130),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_are_one_sentence(
    error: BaseException, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ending_with(error) == status
    printed = capsys.readouterr().err
    assert printed == (f"error: {error}\n" if isinstance(error, Exception) else "")


def test_what_nobody_foresaw_has_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert ending_with(RuntimeError("the GPU fell off the bus")) == 70
    printed = capsys.readouterr().err
    assert "Traceback" in printed and "RuntimeError: the GPU fell off the bus" in printed
