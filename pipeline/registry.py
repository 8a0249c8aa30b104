"""Registry: things built by name from a config, with the near miss for a misspelt name or option.

Notable: the options of an entry are the parameters of its builder; there is no second list to keep.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

Built = TypeVar("Built")


class Registry(Generic[Built]):
    """Builders by name.

    Args:
        what: what is built, for messages: "model".
        given: parameters that the caller supplies; they are not options.
    """

    def __init__(self, what: str, given: Iterable[str] = ()) -> None:
        self._what = what
        self._given = frozenset(given)
        self._builders: dict[str, Callable[..., Built]] = {}

    def add(self, name: str, builder: Callable[..., Built]) -> None:
        """Make `builder` known as `name`."""
        assert name not in self._builders, f"two {self._what}s are called {name!r}"
        self._builders[name] = builder

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._builders)

    def options(self, name: str) -> list[str]:
        """The options that `name` takes, in order of declaration.

        Raises:
            ValueError: nothing has that name.
        """
        parameters = inspect.signature(self._builder(name)).parameters
        return [key for key in parameters if key not in self._given]

    def build(self, name: str, *given: Any, **options: Any) -> Built:
        """Call the builder of `name`.

        Args:
            name: as listed by `names`.
            given: what the caller supplies, by position.
            options: the rest, by name.

        Raises:
            ValueError: an unknown name or option, one that is missing, or what the builder itself
                refuses.
        """
        builder = self._builder(name)
        known = self.options(name)
        for option in options:
            if option not in known:
                raise ValueError(
                    f"{self._what} {name!r} has no option {option!r}{_near(option, known)}"
                )
        parameters = inspect.signature(builder).parameters
        for option in known:
            if parameters[option].default is inspect.Parameter.empty and option not in options:
                raise ValueError(
                    f"key '{self._what}.{option}' is missing: {self._what} {name!r} has no default "
                    "for it"
                )
        return builder(*given, **options)

    def _builder(self, name: str) -> Callable[..., Built]:
        if name not in self._builders:
            raise ValueError(f"there is no {self._what} {name!r}{_near(name, self.names())}")
        return self._builders[name]


def _near(word: str, known: list[str]) -> str:
    """`; did you mean ...?`, or the whole list where nothing is near."""
    near = difflib.get_close_matches(str(word), known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(known)}" if known else "; it has none"
