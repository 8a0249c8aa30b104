"""What every section of a config has in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A mapping whose keys are all declared; an unknown one is an error."""

    model_config = ConfigDict(extra="forbid", validate_default=True)
