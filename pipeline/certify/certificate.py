"""Certificate: what certificate.json says, and reading a certificate directory back.

Notable: `pipeline/verify/` reads the same files with no code of this; what is written here is the
interface between the two.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from pipeline.layers.network import ExportedNetwork

FORMAT = "certline certificate 2"
STATEMENT = "R and F"
CLAIM = (
    "For every image with radius > 0 and every point x' with ||x' - x||_2 < radius, x being the "
    "exact rational v/255, the exact real function of the tensors in model.safetensors ranks the "
    "image's label strictly first at x'."
)
CLAIM_FLOAT = (
    "For every image with radius_float > 0 and every float64 vector x' with ||x' - x||_2 < "
    "radius_float, evaluating that function at x' in IEEE float64 gives the image's label a logit "
    "strictly greater than every other, every dot product and its bias being summed in any order, "
    "fused or not, and in another order at another point, and every softplus, sigmoid or tanh z "
    "being computed within 2^-45 max(1, |z|)."
)
INPUT_SPACE = "v/255, v in 0..255; l2 over all channels and pixels"


@dataclass(frozen=True)
class Certificate:
    """The fields of certificate.json, in its order, and the directory it lies in."""

    directory: Path
    format: str
    statement: str
    claim: str
    claim_float: str
    num_images: int
    num_classes: int
    class_names: list[str]
    clean_accuracy: float
    vra: dict[str, float]
    """Share of images whose radius is strictly above epsilon, by epsilon as written."""
    vra_float: dict[str, float]
    """The same by `radius_float`, of the float64 program (statement F)."""
    vra_unsound: dict[str, float]
    """The same by power iteration and float32 logits, for comparison; proves nothing."""
    epsilons: list[str]
    input: dict[str, Any]
    lipschitz_bound: float
    """Λ, the upward-rounded product of the layers' bounds."""
    lipschitz_unsound: float
    tight: bool
    """Whether the bounds were asked to be tight: with at most one axis on a torus."""
    layers: list[dict[str, Any]]
    """The trunk in order: name, kind, input_shape, attributes, bound, method, evidence."""
    head: dict[str, Any]
    model: dict[str, Any]
    weights_sha256: str
    dataset_sha256: str
    dataset: dict[str, Any]
    files: dict[str, str]
    versions: dict[str, str]
    device: str
    seconds: dict[str, float]
    margins: dict[str, Any] = field(default_factory=dict)
    """How margins are proved where not by K = Λ·D: `method` (liplt, curvature) and its claims."""

    @property
    def method(self) -> str:
        """How margins are proved: product, liplt or curvature."""
        return str(self.margins.get("method", "product"))

    @property
    def usual_recipe(self) -> str:
        """What `vra_unsound` and `lipschitz_unsound` rest on, in a few words."""
        if self.method == "curvature":
            return "the runner-up class alone, float32"
        return "power iteration, float32"

    def to_json(self) -> str:
        """The text of certificate.json; floats in their shortest form that reads back the same."""
        tree = asdict(self)
        del tree["directory"]
        if not self.margins:
            del tree["margins"]
        return json.dumps(tree, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def certificate_in(directory: Path) -> Path:
    """The certificate directory that is meant: itself, or that of a run."""
    places = (directory, directory / "certificate")
    return next((each for each in places if (each / "certificate.json").is_file()), directory)


def read_certificate(directory: Path) -> Certificate:
    """Read certificate.json of a directory. Nothing is checked: that is the verifier's work.

    Raises:
        ValueError: there is none, it is damaged, or it is of another format.
    """
    path = directory / "certificate.json"
    if not path.is_file():
        raise ValueError(f"{directory} holds no certificate.json: the certification is unfinished")
    try:
        tree = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): certify again") from None
    if not isinstance(tree, dict) or tree.get("format") != FORMAT:
        raise ValueError(f"{path} is not of the format {FORMAT!r}: certify again")
    expected = {each.name for each in fields(Certificate)} - {"directory"}
    needed = expected - {"margins"}
    for names, what in ((needed - tree.keys(), "lacks"), (tree.keys() - expected, "has unknown")):
        if names:
            raise ValueError(f"{path} {what} {', '.join(sorted(names))}: certify again")
    return Certificate(directory=directory, **tree)


def load_network(directory: Path) -> ExportedNetwork:
    """The certified function of a certificate directory.

    Raises:
        ValueError: as `read_certificate`, or model.safetensors does not fit the record.
    """
    certificate = read_certificate(directory)
    path = directory / "model.safetensors"
    if sha256_of(path) != certificate.weights_sha256:
        raise ValueError(f"{path} is not the file that was certified: its sha256 differs")
    return ExportedNetwork.from_records(
        certificate.layers, load_file(path), tuple(certificate.input["shape"])
    )


def table_lines(directory: Path, certificate: Certificate) -> list[str]:
    """The lines of a certificate's images.tsv, without the header.

    Raises:
        ValueError: it is missing, or not the one that was written with the certificate.
    """
    path = directory / "images.tsv"
    if not path.is_file() or sha256_of(path) != certificate.files["images.tsv"]:
        raise ValueError(f"{path} is missing or not the table that {directory} was written with")
    return path.read_text().splitlines()[1:]


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
