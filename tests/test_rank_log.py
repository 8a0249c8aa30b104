"""A rank's own log: every line has time, rank and node; starts are appended."""

import re
import warnings
from pathlib import Path

import pytest

from pipeline import rank_log
from pipeline.progress import say
from pipeline.rank_log import LOGGER, close_rank_log, log_path, open_rank_log

HEAD = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z rank 3 node7 "


def test_what_a_rank_other_than_0_says_warns_and_fails_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"RANK": "3", "WORLD_SIZE": "4", "SLURMD_NODENAME": "node7"}.items():
        monkeypatch.setenv(name, value)
    say("before the log is open")
    shown: list[str] = []
    monkeypatch.setattr("pipeline.rank_log._show", lambda message, *_: shown.append(str(message)))
    for start in (1, 2):
        open_rank_log(tmp_path)
        say(f"start {start}")
        with warnings.catch_warnings():  # as outside of pytest, which keeps warnings to itself
            warnings.simplefilter("always")
            warnings.showwarning = rank_log._show_and_log
            warnings.warn("beware", stacklevel=1)
        try:
            raise KeyError("lost")
        except KeyError as error:
            LOGGER.error("error: %s", error, exc_info=True)
        close_rank_log()
    say("after it was closed")
    assert capsys.readouterr().out == "", "the screen is rank 0's"
    assert shown == ["beware"] * 2
    lines = log_path(tmp_path, 3).read_text().splitlines()
    assert all(re.match(HEAD, line) for line in lines)
    said = [re.sub(HEAD, "", line) for line in lines]
    assert re.fullmatch(r"starts as process \d+, one of 4 ranks", said[0])
    assert said[1] == "start 1" and "UserWarning: beware" in said[2]
    assert said[3:5] == ["error: 'lost'", "Traceback (most recent call last):"]
    assert said.count("start 2") == 1
    assert not {"before the log is open", "after it was closed"} & set(said)
