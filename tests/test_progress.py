import pytest

from pipeline.progress import ProgressBar, say


def test_only_rank_0_speaks(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    say("hello")
    with ProgressBar("work", total=2) as bar:
        bar.advance(2)
    assert capfd.readouterr() == ("", "")


def test_a_bar_ends_with_its_numbers(capfd: pytest.CaptureFixture[str]) -> None:
    with ProgressBar("certify", total=512, unit="img") as bar:
        bar.advance(256, vra="70.1 %")
        bar.advance(256, vra="71.0 %")
    last = capfd.readouterr().err.splitlines()[-1]
    assert "certify: 100%" in last
    assert "512/512" in last
    assert "71.0 %" in last


def test_a_pipe_gets_few_lines(capfd: pytest.CaptureFixture[str]) -> None:
    with ProgressBar("train", total=1000) as bar:
        for _ in range(1000):
            bar.advance()
    text = capfd.readouterr().err
    assert text.count("train:") <= 3
