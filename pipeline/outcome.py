"""How a start of the program ends: what the work came to, and the exit status that this becomes.

Notable:
- The status answers one question, to a shell or to the end of a SLURM job: can trying again help?
- A rank that ends alone, by whatever error, tells the others first, so that none is left waiting.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from pipeline import distributed
from pipeline.distributed import RankFailedError, RendezvousError
from pipeline.rank_log import LOGGER, close_rank_log
from pipeline.training.attempts import Attempt, Reason
from pipeline.training.guards import NonFiniteError
from pipeline.training.run_directory import writing
from pipeline.training.stop_request import StopRequestedError, stop_requests


class Exit(IntEnum):
    """Exit statuses of launch/train.py and of every task of a SLURM job."""

    FINISHED = 0
    REFUSED = 1
    """A mistake of the user's, a full disk, or a loss that is not finite: it would happen again."""
    CRASHED = os.EX_SOFTWARE
    """70, an error that nobody foresaw, with its traceback: trying again may help."""
    TRY_AGAIN = os.EX_TEMPFAIL
    """75, left early on request and saved, or lost another rank."""
    INTERRUPTED = 130
    """Ctrl-C; what a shell reports of a program that it ended."""


LASTING = {
    errno.EACCES, errno.EDQUOT, errno.EEXIST, errno.EFBIG, errno.EINVAL, errno.EISDIR, errno.ELOOP,
    errno.ENAMETOOLONG, errno.ENODEV, errno.ENOENT, errno.ENOSPC, errno.ENOSYS, errno.ENOTDIR,
    errno.ENOTSUP, errno.ENXIO, errno.EPERM, errno.EROFS, errno.EXDEV,
}  # fmt: skip
"""Errors of the system that stay until a person does something. Any other, such as those of a file
server that restarts, another try may not meet; three in vain are the last."""


@dataclass(frozen=True)
class Outcome:
    """What a run came to, if nothing went wrong."""

    left_on: str | None = None
    """What asked it to leave early, such as "signal SIGUSR2"; the same call goes on from there."""

    @property
    def finished(self) -> bool:
        """Nothing is left to do."""
        return self.left_on is None

    @property
    def status(self) -> Exit:
        """The exit status that tells it."""
        if self.left_on is None:
            return Exit.FINISHED
        return Exit.INTERRUPTED if self.left_on == "signal SIGINT" else Exit.TRY_AGAIN


FINISHED = Outcome()


def exit_status(work: Callable[[], Outcome]) -> int:
    """Do the work of this rank and say in the exit status how it ended; errors are one sentence.

    Every door that runs on several ranks calls it once: signals are requests from the first moment
    on, a rank that ends alone tells the others, and all leave the process group together.

    Args:
        work: such as `lambda: run.main(config)`.
    """
    with stop_requests():
        try:
            outcome = work()
            distributed.stop()
            return outcome.status
        except StopRequestedError as request:
            outcome = Outcome(request.what)
            distributed.leave_alone(f"left on {request.what}", outcome.status, on_request=True)
            return outcome.status
        except KeyboardInterrupt:
            distributed.leave_alone("was interrupted by Ctrl-C", Exit.INTERRUPTED)
            return Exit.INTERRUPTED
        except Exception as error:
            if distributed.is_lost_peer(error):
                distributed.end_for_lost_peer(error)
            status = status_of(error)
            distributed.leave_alone(f"ended: {error}", status)
            if _is_a_surprise(error):
                traceback.print_exc()
            else:
                print(f"error: {error}", file=sys.stderr)
            return status


def recorded(directory: Path, work: Callable[[], Outcome]) -> Outcome:
    """Do the work and keep the books: attempts.jsonl, and how it ended in each rank's log.

    A collective at its beginning.

    Args:
        directory: the run directory.
        work: may open the rank's log.

    Raises:
        ValueError: three attempts before this one broke down without getting any further.
    """
    world = distributed.current_world()
    nodes = list(dict.fromkeys(distributed.gather_objects(distributed.node_name())))
    attempt: Attempt | None = None
    with distributed.together(), writing(directory):
        if world.is_main:
            attempt = Attempt(directory, nodes, world.size)

    def note(reason: Reason, what: str) -> None:
        LOGGER.info("ends (%s): %s", reason, what)
        if attempt is not None:
            attempt.end(reason, what)

    def note_sudden_end(what: str, status: int) -> None:
        asked = distributed.departed() is not None
        note("refused" if status == Exit.REFUSED else "request" if asked else "fault", what)

    distributed.before_a_sudden_end(note_sudden_end)
    try:
        outcome = work()
    except StopRequestedError as request:
        note("request", f"left on {request.what}")
        raise
    except KeyboardInterrupt:
        note("request", "interrupted by Ctrl-C")
        raise
    except Exception as error:
        if distributed.is_lost_peer(error):
            raise  # noted when it is known who was lost
        status = status_of(error)
        LOGGER.error("error: %s", error, exc_info=_is_a_surprise(error))
        note("refused" if status == Exit.REFUSED else "fault", str(error))
        raise
    if outcome.finished:
        note("finished", "finished")
    else:
        note("request", f"left on {outcome.left_on} and saved")
    close_rank_log()
    return outcome


def _is_a_surprise(error: Exception) -> bool:
    """Whether a traceback says more than the sentence."""
    return status_of(error) == Exit.CRASHED and not isinstance(error, RankFailedError)


def status_of(error: Exception) -> Exit:
    """The exit status that an error ends with."""
    number = error.errno if isinstance(error, OSError | RankFailedError) else None
    if isinstance(error, RendezvousError) or (number is not None and number not in LASTING):
        return Exit.TRY_AGAIN
    is_mistake = isinstance(error, ValueError | OSError | NonFiniteError)
    if is_mistake or (isinstance(error, RankFailedError) and error.is_mistake):
        return Exit.REFUSED
    return Exit.CRASHED
