"""What a terminal and a log file show, by a terminal of our own."""

import io
import os
import re
from contextlib import redirect_stdout

import pytest

from pipeline.sweep.display import Display, Row


class Terminal(io.StringIO):
    """Keeps every line ever scrolled; knows the control sequences that `Display` uses."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = [""]
        self.row = 0

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        for part in re.findall(r"\x1b\[\d*[A-Z]|\n|[^\x1b\n]+", text):
            if part == "\n":
                self.row += 1
                self.lines += [""] * (self.row + 1 - len(self.lines))
            elif part.endswith("F") and part[0] == "\x1b":
                self.row -= int(part[2:-1])
                self.column = 0
            elif part == "\x1b[K":
                self.lines[self.row] = self.lines[self.row][: self.column]
            elif part == "\x1b[J":
                del self.lines[self.row + 1 :]
                self.lines[self.row] = ""
            else:
                self.lines[self.row] = part + self.lines[self.row][len(part) :]
                self.column = len(part)
        return len(text)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    made = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("shutil.get_terminal_size", lambda *_, **__: os.terminal_size((40, 10)))
    return made


def rows(*states: str) -> list[Row]:
    return [Row(f"run{i}", state, f"text of {state}") for i, state in enumerate(states)]  # type: ignore[arg-type]


def test_a_terminal_shows_the_newest_state_and_all_that_was_said(terminal: Terminal) -> None:
    with redirect_stdout(terminal):
        display = Display()
        display.say("begin")
        display.show(rows("running", "waiting"), "0 of 2 runs done")
        display.show(rows("done", "running"), "1 of 2")
        display.say("a line\nand another")
        display.show(rows("done", "failed"), "end")
    assert terminal.lines == [
        "begin",
        "a line",
        "and another",
        "  run0  done     text of done",
        "  run1  failed   text of failed",
        "end",
        "",
    ]


def test_a_block_is_never_larger_than_the_screen(terminal: Terminal) -> None:
    states = ["done"] * 5 + ["waiting"] * 9 + ["running"] + ["failed"]
    with redirect_stdout(terminal):
        display = Display()
        display.show([Row(row.name, row.state, "x" * 99) for row in rows(*states)], "last")
    shown = terminal.lines[:-1]
    assert len(shown) < 10 and max(map(len, shown)) < 40
    assert sum("running" in line for line in shown) == 1
    assert sum("failed" in line for line in shown) == 1
    assert shown[-2:] == ["  … and 5 done, 5 waiting", "last"]
    with redirect_stdout(terminal):
        display.show(rows("done"), "last")
    assert terminal.lines == ["  run0  done     text of done", "last", ""]


def test_a_file_has_a_line_when_a_state_changes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    display = Display()
    for states in (["running", "waiting"], ["running", "waiting"], ["done", "running"]):
        display.show(rows(*states), "last")
    printed = capsys.readouterr().out
    assert printed.splitlines() == [
        "  run0  running  text of running",
        "  run0  done     text of done",
        "  run1  running  text of running",
    ]
    assert "\x1b" not in printed
    clock[0] = 61
    display.show(rows("done", "running"), "last")
    display.show(rows("done", "running"), "last")
    assert capsys.readouterr().out == "  run1  running  text of running\nlast\n"
