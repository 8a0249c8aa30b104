"""What a person sees of training: the progress bar, and a line an epoch."""

from __future__ import annotations

from pipeline.progress import ProgressBar, say
from pipeline.training.callbacks import Callback, EpochRecord, StepRecord


class Display(Callback):
    """One bar over the whole run, so that its time left is the run's.

    Args:
        total_steps: of the run.
        batch_size: global.
    """

    def __init__(self, total_steps: int, batch_size: int) -> None:
        self._total_steps = total_steps
        self._batch_size = batch_size
        self._bar: ProgressBar | None = None

    def on_start(self, step: int) -> None:
        """Draw the bar where the run goes on."""
        images = self._total_steps * self._batch_size
        self._bar = ProgressBar("train", images, "img", initial=step * self._batch_size)
        self._bar.__enter__()

    def on_step_end(self, record: StepRecord) -> None:
        """Move the bar."""
        assert self._bar is not None
        shown = {"epoch": f"{record.epoch + 1}", "loss": f"{record.loss:.3f}"}
        if record.lipschitz is not None:
            shown |= _clean(record)
            shown["epsilon"] = f"{record.epsilon:.3g}"
            shown["K"] = f"{record.lipschitz:.3g}"
        self._bar.advance(record.images, **shown)

    def on_epoch_end(self, record: EpochRecord) -> None:
        """One line of what the validation found."""
        found = record.numbers.get("validation")
        if found:
            say(
                f"epoch {record.epoch + 1}: validation clean "
                f"{found['clean_accuracy']:.2%}, VRA estimate {found['vra_estimate']:.2%} at "
                f"epsilon {found['epsilon']} (no certificate)"
            )

    def on_end(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.__exit__(None, None, None)


def _clean(record: StepRecord) -> dict[str, str]:
    """Clean accuracy; of real and of generated images apart where there are both."""
    if not record.by_origin:
        return {"clean": f"{record.metrics['correct']:.1%}"}
    real, generated = (record.by_origin[origin]["correct"] for origin in ("real", "generated"))
    return {"clean": f"{real:.1%}", "generated": f"{generated:.1%}"}
