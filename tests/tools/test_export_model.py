"""A published network is the certified one, and its card says what the certificate says."""

from pathlib import Path

import pytest
import torch

from pipeline.certify.certificate import load_network, read_certificate
from tests.certify.small import small_network
from tests.verify.test_certified import certified
from tools.export_model import main


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = certified(small_network(1), tmp_path_factory.mktemp("small"), 20)
    return folder / "certificate"


def test_weights_and_numbers_are_the_certificates(certificate: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "published"
    assert main([str(certificate), "--out", str(out)]) == 0
    names = {path.name for path in out.iterdir()}
    assert names == {"README.md", "model.safetensors", "config.yaml", "certificate.json"}
    assert [path.name for path in out.parent.iterdir()] == ["published"]
    known, network = read_certificate(certificate), load_network(out)
    x = torch.rand(3, 1, 4, 4, dtype=torch.float64)
    ours = load_network(certificate)
    assert torch.equal(network.logits(network.trunk(x)), ours.logits(ours.trunk(x)))
    card = (out / "README.md").read_text()
    for epsilon, share in known.vra.items():
        assert f"| VRA at {epsilon} | {100 * share:.2f} % |" in card
    assert f"| clean accuracy | {100 * known.clean_accuracy:.2f} % |" in card
    assert known.weights_sha256 in card and known.claim in card


def test_mistakes(certificate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(certificate), "--out", str(tmp_path)])
    assert "exists already" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--out", str(tmp_path / "new")])
    assert "holds no certificate.json" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit):
        main([str(certificate), "--out", str(tmp_path / "file" / "new")])
    assert "file" in capsys.readouterr().err


def test_changed_weights_are_not_handed_on(
    certificate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in certificate.iterdir():
        content = path.read_bytes()
        last = bytes([content[-1] ^ 1]) if path.name == "model.safetensors" else content[-1:]
        (copy / path.name).write_bytes(content[:-1] + last)
    with pytest.raises(SystemExit):
        main([str(copy), "--out", str(tmp_path / "new")])
    assert "is not the file that was certified" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
