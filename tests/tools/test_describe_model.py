"""The command line that describes a network."""

import pytest

from tools.describe_model import main


def test_a_network_layer_by_layer(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["cpl", "depth=1", "channels=4", "dense_depth=1", "features=6", "conv_hidden=2"]
    assert main([*words, "--image-size", "8", "--in-channels", "1", "--time", "--bound"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (convolution,) = (line.split() for line in lines if line.startswith("convolutions.0"))
    # 2·4·9 weights and 2 biases; two products of 2·(2·4·9)·64 operations.
    assert convolution[1:5] == ["ConvexPotentialConv2d", "4×8×8", "74", "0.02"]
    (total,) = (line.split() for line in lines if line.startswith("total"))
    assert total[1] == str(74 + 6 * 16 + 6)
    assert "certificate: possible" in lines
    assert any(line.startswith("time: ") for line in lines)
    assert "certified bound of the trunk as initialised: 1" in lines


def test_names_that_match(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cpl_?"]) == 0
    found = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert found == [["cpl_l", "236.23"], ["cpl_m", "78.74"], ["cpl_s", "41.34"]]


def test_a_network_without_certificate_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    main(["cpl", "step=0.1", "depth=1", "dense_depth=0", "channels=4"])
    assert "its steps are fixed at 0.1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["cpl_z"], "did you mean"),
        (["cpl", "dept=3"], "did you mean 'depth'"),
        (["cpl", "depth"], "write KEY=VALUE"),
        (["cpl", "image_size=32"], "image_size is not among the options of a model"),
        (["liresnet", "width=[1"], "is no YAML"),
        (["liresnet", "width=7"], "needs an even number"),
    ],
)
def test_mistakes(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(words)
    assert sentence in capsys.readouterr().err
