"""The checks in their order, from the files to the logits; the first that fails is the last.

Notable: it fails closed. Whatever goes wrong while a hostile file is read ends as a refusal, never
as a traceback, and never as a check that is passed over.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

from pipeline.verify.certificate import chosen_classes, margin_method, read_certificate
from pipeline.verify.curvature import CurvatureProver
from pipeline.verify.curvature_check import CurvatureCheck
from pipeline.verify.datasets import open_images
from pipeline.verify.directory import (
    CERTIFICATE,
    CONFIG,
    TABLE,
    WEIGHTS,
    check_hash,
    read_file,
)
from pipeline.verify.forward import Forward
from pipeline.verify.head import HeadDistances
from pipeline.verify.layers import Layer
from pipeline.verify.liplt import LipLTDistances, read_claims
from pipeline.verify.logits import LogitCheck
from pipeline.verify.machine import probe_matrix_product
from pipeline.verify.network import Network, read_network
from pipeline.verify.norms import Proof
from pipeline.verify.proofs import prove_layer
from pipeline.verify.refusal import Refusal, quote, require
from pipeline.verify.residual_liplt import ResidualDistances, is_residual
from pipeline.verify.rows import Row, check_row, read_rows
from pipeline.verify.strict_json import Record
from pipeline.verify.tensors import read_tensors
from pipeline.verify.totals import check_totals
from pipeline.verify.verdict import FAILED, NOT_REACHED, OK, SKIPPED, Check, Verdict

LARGEST_LOOSENESS = 1 + 1e-6
"""How far the head's largest constant may lie above ours: it bounds nothing, but it is printed."""

Watch = Callable[[str, int, int], None]
"""Called with (what, done, in all) during the long steps."""


def verify_certificate(
    directory: Path, data: Path | None = None, watch: Watch | None = None
) -> Verdict:
    """Check a certificate directory, with the data set if it is given.

    Args:
        directory: as written by certification.
        data: the certified images, an exact .beton or an .npz; without it no logit is checked.
        watch: told of progress.

    Returns:
        The verdict. Nothing is raised for a certificate that is wrong, damaged or hostile.
    """
    inspection = Inspection(directory, data, watch or (lambda what, done, total: None))
    checks: list[Check] = []
    refusal: str | None = None
    for name, step in inspection.steps():
        if refusal is not None:
            checks.append(Check(name, NOT_REACHED))
            continue
        try:
            detail = step()
            checks.append(Check(name, SKIPPED if detail is None else OK, detail or "no --data"))
        except Refusal as error:
            refusal = str(error)
        except Exception as error:  # fail closed, see above
            refusal = f"{name} cannot be checked: {type(error).__name__} {quote(error)}"
        if refusal is not None:
            checks.append(Check(name, FAILED, refusal))
    return Verdict(tuple(checks), refusal, inspection.summary() if refusal is None else "")


class Inspection:
    """What is known of a certificate so far; each step relies on those before it."""

    certificate: Record
    method: str
    contents: dict[str, bytes]
    network: Network
    lipschitz_bound: float
    distances: HeadDistances
    prover: CurvatureProver | None
    rows: list[Row]
    epsilons: dict[str, Fraction]

    def __init__(self, directory: Path, data: Path | None, watch: Watch) -> None:
        self._directory = directory
        self._data = data
        self._watch = watch

    def steps(self) -> list[tuple[str, Callable[[], str | None]]]:
        """Name and method of every check; a method returns a detail, or None if it was skipped."""
        return [
            ("matrix product", probe_matrix_product),
            ("certificate.json", self.read_certificate),
            ("file hashes", self.check_files),
            ("weights and layers", self.read_network),
            ("layer bounds", self.prove_bounds),
            ("Lipschitz bound", self.check_product),
            ("head distances", self.check_head),
            ("rows", self.check_rows),
            ("totals", self.check_totals),
            ("data set and logits", self.check_logits),
        ]

    def read_certificate(self) -> str:
        """Format, statement, and every key with its type."""
        self.certificate = read_certificate(self._read(CERTIFICATE))
        self.method = margin_method(self.certificate)
        count, classes = (self.certificate.count(f"num_{what}") for what in ("images", "classes"))
        return f"statements R and F, {count} images, {classes} classes"

    def check_files(self) -> str:
        """sha256 of every file named; weights, config and table must be."""
        files = self.certificate.record("files")
        expected = {name: files.digest(name) for name in files.values}
        for name in (WEIGHTS, CONFIG, TABLE):
            require(name in expected, f"certificate.json has no hash of {name}")
        require(
            self.certificate.digest("weights_sha256") == expected[WEIGHTS],
            "weights_sha256 is not the hash that files gives for model.safetensors",
        )
        self.contents = {}
        for name, digest in expected.items():
            content = self._read(name)
            check_hash(name, content, digest)
            if name in (WEIGHTS, TABLE):
                self.contents[name] = content
        return f"sha256 of {', '.join(expected)}"

    def read_network(self) -> str:
        """Kinds known, shapes chained, every tensor used once."""
        tensors = read_tensors(self.contents.pop(WEIGHTS))
        self.network = read_network(self.certificate, tensors)
        classes = self.certificate.count("num_classes")
        require(
            self.network.num_classes == classes,
            f"the head has {self.network.num_classes} rows, num_classes is {classes}",
        )
        numbers = sum(tensor.size for tensor in tensors.values())
        return f"{len(self.network.layers)} layers, {len(tensors)} tensors, {numbers:,} numbers"

    def prove_bounds(self) -> str:
        """Gram iteration or a factorisation for every layer with weights; 1 for the others."""
        proofs = []
        for layer in self.network.layers:
            proof = self._prove(layer)
            require(
                proof.holds,
                f"{layer} claims the bound {layer.bound!r}, but only {proof.bound!r} can be proved "
                f"({proof.how})",
            )
            proofs.append(proof)
        proved = sum(
            layer.weight is not None or layer.branch is not None for layer in self.network.layers
        )
        factored = sum(proof.factored for proof in proofs)
        return (
            f"{proved - factored} norms proved by Gram iteration, {factored} by a factorisation, "
            f"{len(proofs) - proved} layers without weights"
        )

    def check_product(self) -> str:
        """Λ is at least the exact product of the layer bounds."""
        self.lipschitz_bound = self.certificate.number("lipschitz_bound")
        product = math.prod(Fraction(layer.bound) for layer in self.network.layers)
        require(
            Fraction(self.lipschitz_bound) >= product,
            f"lipschitz_bound {self.lipschitz_bound!r} is below the product of the layer bounds, "
            f"{float(product)!r}",
        )
        return f"{self.lipschitz_bound:.6g} is not below the exact product of the layer bounds"

    def check_head(self) -> str:
        """Distances of the head's rows; the largest constant is the one stated."""
        if self.method == "liplt":
            claims = read_claims(self.certificate.record("margins"))
            read = ResidualDistances if is_residual(self.network.layers) else LipLTDistances
            self.distances = read(
                self.network.weight, self.network.layers, claims, self._progress("LipLT")
            )
        else:
            self.distances = HeadDistances(self.network.weight)
        claim = self.certificate.record("head").number("max_margin_lipschitz")
        least = float(self.distances.flattest(self.lipschitz_bound).max())
        most = float(self.distances.steepest(self.lipschitz_bound).max()) * LARGEST_LOOSENESS
        require(
            least <= claim <= most,
            f"max_margin_lipschitz {claim!r} is not between {least!r} and {most!r}",
        )
        self.prover = None
        if self.method == "curvature":
            margins = self.certificate.record("margins")
            self.prover = CurvatureProver(self.network, margins, self._progress("curvature"))
        return f"{self.network.num_classes} rows, largest constant {claim:.6g}"

    def check_rows(self) -> str:
        """Every row, in order, follows from its own numbers."""
        count = self.certificate.count("num_images")
        self.rows = read_rows(self.contents.pop(TABLE), count, self.network.num_classes)
        for row in self.rows:
            check_row(row, self.distances, self.lipschitz_bound, self.method != "curvature")
            self._watch("rows", row.index + 1, count)
        if self.method == "curvature":
            return f"{count} rows; their radii are proved from the pixels alone, see below"
        return f"{count} rows, radii follow from margin, delta and constant in exact arithmetic"

    def check_totals(self) -> str:
        """Clean accuracy and VRA."""
        self.epsilons = check_totals(self.certificate, self.rows)
        return f"clean accuracy and VRA at {', '.join(self.epsilons)}"

    def check_logits(self) -> str | None:
        """The data set's hash, the labels, and every logit."""
        if self._data is None:
            return None
        digest = self.certificate.digest("dataset_sha256")
        classes = chosen_classes(self.certificate)
        count = len(self.rows)
        images = open_images(self._data, digest, count, classes, self._progress("hash of the data"))
        forward = Forward(self.network)
        arguments = forward, self.distances, self.lipschitz_bound, self.epsilons
        check = (
            LogitCheck(*arguments)
            if self.prover is None
            else CurvatureCheck(self.prover, *arguments)
        )
        check.check(self.rows, images, self._progress("logits"))
        which = "" if classes is None else f" of the {len(classes)} classes chosen"
        return f"hash, labels, {count} predictions{which}; {check.summary()}"

    def summary(self) -> str:
        """The last line of a certificate that holds."""
        vra = ", ".join(
            f"{text}: {100 * share:.2f} %"
            for text, share in self.certificate.record("vra").values.items()
        )
        radii = "logits and radii" if self.method == "curvature" else "logits"
        unchecked = f" ({radii} not checked: no --data)" if self._data is None else ""
        clean = 100 * self.certificate.number("clean_accuracy")
        return f"clean {clean:.2f} %, VRA {vra}{unchecked}"

    def _prove(self, layer: Layer) -> Proof:
        return prove_layer(layer, self._progress(f"bound of {layer.name}"))

    def _read(self, name: str) -> bytes:
        return read_file(self._directory, name, self._progress(name))

    def _progress(self, what: str) -> Callable[[int, int], None]:
        return lambda done, total: self._watch(what, done, total)
