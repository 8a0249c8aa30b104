"""tools/bench.py certify: the numbers are there; how large they are is no test."""

import json
from pathlib import Path

import pytest

from pipeline.certify import certify
from tests.certify.small import ArrayLoader, labelled_images, small_network
from tools import bench


def test_the_door(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = small_network(0)
    certify(network, ArrayLoader(*labelled_images(network, 0, 30)), ["0.1"], tmp_path / "c")
    words = ["certify", str(tmp_path / "c"), "--images", "70", "--rounds", "2"]
    assert bench.main([*words, "--out", str(tmp_path / "costs.json")]) == 0
    printed = capsys.readouterr().out
    assert "float64 inference" in printed and "of inference" in printed
    costs = json.loads((tmp_path / "costs.json").read_text())
    assert [cost["what"] for cost in costs][:2] == ["float64 inference", "certification"]
    assert all(cost["cpu"] > 0 and cost["wall"] > 0 for cost in costs)
    assert bench.main([*words[:2], "--images", "0"]) == 1
    assert "--images 0" in capsys.readouterr().err
    assert bench.main(["certify", str(tmp_path / "nothing")]) == 1
