"""No test leaves anything in the environment of the process for the next one.

Libraries and the DeepSpeed engine set variables such as LOCAL_RANK for their own process; a later
test that starts a program with `os.environ` would give it a world it is not part of.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def restored() -> Iterator[None]:
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(autouse=True, scope="module")
def environment_of_the_module() -> Iterator[None]:
    with restored():
        yield


@pytest.fixture(autouse=True)
def environment_of_the_test() -> Iterator[None]:
    with restored():
        yield
