"""What the verifier says: a table of checks and one last line."""

from __future__ import annotations

from dataclasses import dataclass

OK, FAILED, SKIPPED, NOT_REACHED = "ok", "FAILED", "not checked", "not reached"


@dataclass(frozen=True)
class Check:
    """One line of the table."""

    name: str
    outcome: str
    detail: str = ""


@dataclass(frozen=True)
class Verdict:
    """The outcome for one certificate."""

    checks: tuple[Check, ...]
    refusal: str | None
    """The first thing that is wrong; None if everything that was checked holds."""
    summary: str
    """What is verified, for the last line."""

    @property
    def verified(self) -> bool:
        """Whether everything that was checked holds."""
        return self.refusal is None

    def __str__(self) -> str:
        width = max(len(check.name) for check in self.checks)
        lines = [
            f"{check.name:<{width}}  {check.outcome:<11}  {check.detail}".rstrip()
            for check in self.checks
        ]
        last = f"VERIFIED {self.summary}" if self.verified else f"REFUSED: {self.refusal}."
        return "\n".join([*lines, "", last])
