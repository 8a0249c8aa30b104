"""The stopwatch: parts add up to the whole, an inner part interrupts the outer one."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import stopwatch
from pipeline.stopwatch import OTHER, Stopwatch

CPU = torch.device("cpu")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_an_inner_part_interrupts_the_outer() -> None:
    clock = Clock()
    watch = Stopwatch(CPU, clock)
    clock.now += 1
    with watch.part("forward"):
        clock.now += 2
        with watch.part("lipschitz"):
            clock.now += 4
        clock.now += 8
    clock.now += 16
    assert watch.take() == {OTHER: 17, "forward": 10, "lipschitz": 4}
    clock.now += 3
    assert watch.take() == {OTHER: 3}


def test_a_part_ends_with_an_error_too() -> None:
    clock = Clock()
    watch = Stopwatch(CPU, clock)
    with pytest.raises(RuntimeError), watch.part("backward"):
        clock.now += 1
        raise RuntimeError
    clock.now += 2
    assert watch.take() == {"backward": 1, OTHER: 2}


def test_waiting_for_items_is_timed_and_their_use_is_not() -> None:
    clock = Clock()

    def batches():
        for number in range(3):
            clock.now += 10
            yield number
        clock.now += 1  # the end of an epoch is waited for as well

    watch = Stopwatch(CPU, clock)
    for _ in watch.each("data", batches()):
        clock.now += 0.5
    assert watch.take() == {OTHER: 1.5, "data": 31}


def test_leaving_early_closes_nothing_twice() -> None:
    watch = Stopwatch(CPU, Clock())
    first = next(watch.each("data", itertools.count()))
    assert first == 0


def test_what_came_after_the_last_mark_can_be_named_later() -> None:
    """As for gradients: what follows the last one is waiting for the other ranks."""
    clock = Clock()
    watch = Stopwatch(CPU, clock)
    with watch.running(), watch.part("backward"):
        for _ in range(3):
            clock.now += 1
            stopwatch.mark()
        clock.now += 5
        stopwatch.since_mark("communication")
        clock.now += 0.25
    assert watch.take() == {OTHER: 0, "backward": 3.25, "communication": 5}


def test_parts_speak_to_the_active_one_only() -> None:
    clock = Clock()
    outer, inner = Stopwatch(CPU, clock), Stopwatch(CPU, clock)
    with stopwatch.part("nobody measures"):
        stopwatch.mark()
        stopwatch.since_mark("nobody")
    with outer.running(), stopwatch.part("a"):
        clock.now += 1
        with inner.running(), stopwatch.part("b"):
            clock.now += 2
    assert outer.take() == {OTHER: 0, "a": 3} and inner.take() == {OTHER: 1, "b": 2}
    assert Stopwatch.active is None


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.recursive(st.integers(1, 9), lambda inner: st.lists(inner, max_size=4), max_leaves=12))
def test_parts_add_up(tree) -> None:
    """Whatever the nesting, nothing is counted twice and nothing is lost."""
    clock = Clock()
    watch = Stopwatch(CPU, clock)

    def walk(node, depth: int) -> None:
        if isinstance(node, int):
            clock.now += node
            return
        with watch.part(f"depth{depth}"):
            for child in node:
                walk(child, depth + 1)

    walk(tree, 0)
    assert sum(watch.take().values()) == clock.now - 100


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_gpu_time_is_the_gpus() -> None:
    device = torch.device("cuda")
    matrix = torch.randn(4096, 4096, device=device)
    watch = Stopwatch(device)
    with watch.part("forward"):
        for _ in range(20):
            matrix = torch.tanh(matrix @ matrix)
    torch.cuda.synchronize()
    seconds = watch.take()
    assert seconds["forward"] > seconds.get(OTHER, 0)
