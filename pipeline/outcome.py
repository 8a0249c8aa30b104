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

from pipeline import distributed
from pipeline.training.guards import NonFiniteError
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


PASSING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EREMOTEIO}
"""Errors of a file server that another try, perhaps on other nodes, may not meet."""


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

    Every door that runs on several ranks calls it once: with signals turned into requests from
    the first moment, and leaving the process group at the end.

    Args:
        work: such as `lambda: run.main(config)`.
    """
    with stop_requests():
        try:
            outcome = work()
        except StopRequestedError as request:
            return Outcome(request.what).status
        except KeyboardInterrupt:
            return Exit.INTERRUPTED
        except (ValueError, OSError, NonFiniteError) as error:
            print(f"error: {error}", file=sys.stderr)
            passing = isinstance(error, OSError) and error.errno in PASSING
            return Exit.TRY_AGAIN if passing else Exit.REFUSED
        except Exception:
            traceback.print_exc()
            return Exit.CRASHED
        distributed.stop()
        return outcome.status
