"""One start of a training run: where it goes on, and what is said when it begins and is left."""

from __future__ import annotations

from pathlib import Path

from pipeline.distributed import gather_objects
from pipeline.progress import say
from pipeline.training.checkpointing import Checkpointing
from pipeline.training.loop import Loop
from pipeline.training.peak_memory import peak_memory
from pipeline.training.stop_request import StopRequest


def train_on(
    loop: Loop, checkpointing: Checkpointing, directory: Path, stop: StopRequest
) -> str | None:
    """Go on from the newest checkpoint to the end of the loop's plan. A collective.

    Args:
        loop: its callbacks have `checkpointing` last.
        directory: of the run, or of its trial where the plan has `max_steps`.
        stop: whether somebody asked to leave.

    Returns:
        What it was left on before its end, such as "signal SIGUSR2"; None where it was not.

    Raises:
        ValueError, NonFiniteError: as `Checkpointing.restore` and `Loop.run`.
    """
    total_steps, max_steps = loop.total_steps, loop.plan.max_steps
    begun = checkpointing.restore()
    say(_opening(directory, begun, total_steps, max_steps))
    asked = any(gather_objects(stop()))
    done = begun if asked or begun == total_steps else loop.run(begun)
    if done < min(max_steps or total_steps, total_steps):
        left_on: str = next(filter(None, gather_objects(stop.what)))
        say(
            f"stopped after step {done} of {total_steps} on {left_on} and saved in "
            f"{directory}; the same command goes on from there"
        )
        return left_on
    if max_steps is not None:
        memory = peak_memory(loop.engine.device)
        say(
            f"tried {done} of {total_steps} steps in {directory}; not certified; at most "
            f"{memory:.2f} GB of memory a rank"
        )
    return None


def _opening(directory: Path, begun: int, total_steps: int, max_steps: int | None) -> str:
    """The sentence that a run begins with."""
    if max_steps is not None:
        return f"trying {min(max_steps, total_steps)} of {total_steps} steps in {directory}"
    if begun == total_steps:
        return f"{directory}: training is finished, {total_steps} steps"
    if begun:
        return f"{directory}: going on after step {begun} of {total_steps}"
    return f"{directory}: training for {total_steps} steps"
