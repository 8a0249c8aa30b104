"""diffusers, imported when a network or a scheduler of it is wanted."""

from __future__ import annotations

from types import ModuleType


def import_diffusers() -> ModuleType:
    """The library.

    Raises:
        ValueError: it cannot be imported.
    """
    try:
        import diffusers
    except ImportError as error:
        raise ValueError(
            f"the tasks ddpm_train and ddpm_sample need diffusers, which cannot be imported "
            f"({error}): pip install diffusers"
        ) from None
    return diffusers
