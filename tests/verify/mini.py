"""A small certificate written by hand, with no code of the certifier or the verifier.

`Mini.make()` is true; tests alter it and `write` it, hashes recomputed or not.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save

HEADER = "idx label predict radius correct time binding margin lipschitz delta radius_float"
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
UNIT = 2.0**-53
INSIDE = 1 - 1e-9
"""Rounding in the ball takes less than this from the radii here."""
SIZE, CLASSES, IMAGES = 8, 5, 40


def gamma(n: int) -> float:
    return n * UNIT / (1 - n * UNIT) * (1 + 1e-15)


def conv_norm(weight: np.ndarray, size: int, stride: int, padding: int) -> float:
    """Norm of the explicit matrix of the zero-padded convolution."""
    units = torch.eye(weight.shape[1] * size * size, dtype=torch.float64)
    maps = units.view(-1, weight.shape[1], size, size)
    images = F.conv2d(maps, torch.from_numpy(weight).double(), stride=stride, padding=padding)
    return float(np.linalg.norm(images.flatten(1).numpy(), 2))


def torus_norm(weight: np.ndarray, torus: int, twist: float) -> float:
    """Largest block of the stride-1 twisted torus, by complex exponentials."""
    angles = 2 * np.pi * (np.arange(torus) + twist) / torus
    phases = np.exp(1j * np.outer(angles, np.arange(weight.shape[2])))
    blocks = np.einsum("oiab,fa,gb->fgoi", weight.astype(np.float64), phases, phases)
    return float(np.linalg.svd(blocks, compute_uv=False).max())


@dataclass
class Mini:
    certificate: dict[str, Any]
    tensors: dict[str, np.ndarray]
    rows: list[dict[str, str]]
    images: np.ndarray
    labels: np.ndarray
    logits: np.ndarray = field(default_factory=lambda: np.zeros((IMAGES, CLASSES)))
    config: bytes = b"model: {name: mini}\n"
    extra_lines: list[str] = field(default_factory=list)

    @classmethod
    def make(cls, seed: int = 0) -> Mini:
        """A true certificate, the same for the same seed; every call returns a fresh copy."""
        if seed not in MADE:
            MADE[seed] = cls._make(seed)
        return copy.deepcopy(MADE[seed])

    @classmethod
    def _make(cls, seed: int) -> Mini:
        random = np.random.default_rng(seed)

        def draw(*shape: int) -> np.ndarray:
            spread = math.sqrt(math.prod(shape[1:]) or 1)
            return (random.standard_normal(shape) / spread).astype(np.float32)

        tensors = {
            "stem.weight": draw(8, 1, 3, 3),
            "stem.bias": draw(8) / 10,
            "down.weight": draw(8, 8, 2, 2),
            "down.bias": draw(8) / 10,
            "dense.weight": draw(12, 128),
            "dense.bias": draw(12) / 10,
            "head.weight": draw(CLASSES, 12),
            "head.bias": draw(CLASSES) / 10,
        }
        stem = torus_norm(tensors["stem.weight"], SIZE + 1, 0.5) * (1 + 1e-6)
        down = np.linalg.norm(tensors["down.weight"].reshape(8, -1).astype(float), 2) * (1 + 1e-6)
        dense = np.linalg.norm(tensors["dense.weight"].astype(float), 2) * (1 + 1e-6)
        records = [
            layer("shift", "shift", [1, 8, 8], {"center": 0.5}, 1.0),
            layer("stem", "conv2d", [1, 8, 8], {"stride": 1, "padding": 1}, stem),
            layer("act1", "minmax", [8, 8, 8], {}, 1.0),
            layer("down", "conv2d", [8, 8, 8], {"stride": 2, "padding": 0}, down),
            layer("flat", "flatten", [8, 4, 4], {}, 1.0),
            layer("dense", "dense", [128], {}, dense),
            layer("act2", "minmax", [12], {}, 1.0),
        ]
        records[1]["evidence"] = {"torus": [9, 9], "twist": ["1/2", "1/2"]}
        bound = stem * (1 + 1e-15) * down * (1 + 1e-15) * dense * (1 + 1e-15)
        images = random.integers(0, 256, (IMAGES, SIZE, SIZE, 1), dtype=np.uint8)
        mini = cls({}, tensors, [], images, np.zeros(IMAGES, np.int64))
        mini._fill_rows(records, bound, random)
        digest = mini.dataset_sha256()
        mini.certificate = {
            "format": "certline certificate 2",
            "statement": "R and F",
            "claim": CLAIM,
            "claim_float": CLAIM_FLOAT,
            "num_images": IMAGES,
            "num_classes": CLASSES,
            "class_names": [f"class {number}" for number in range(CLASSES)],
            "clean_accuracy": 0.0,
            "vra": {},
            "vra_float": {},
            "vra_unsound": {},
            "epsilons": ["4/255", "0.05"],
            "input": {
                "shape": [1, SIZE, SIZE],
                "space": "v/255, v in 0..255; l2 over all channels and pixels",
            },
            "lipschitz_bound": bound,
            "lipschitz_unsound": bound * 0.99,
            "tight": False,
            "layers": records,
            "head": {"weight": "head.weight", "bias": "head.bias", "max_margin_lipschitz": 0.0},
            "model": {"name": "mini"},
            "weights_sha256": "",
            "dataset_sha256": digest,
            "dataset": {"spec": "npz:mini.npz", "num_samples": IMAGES},
            "files": {},
            "versions": {"numpy": np.__version__},
            "device": "cpu",
            "seconds": {"bounds": 0.1},
        }
        rows = tensors["head.weight"].astype(float)
        largest = max(np.linalg.norm(a - b) for a in rows for b in rows)
        mini.certificate["head"]["max_margin_lipschitz"] = bound * largest * (1 + 1e-12)
        mini.recount()
        return mini

    def _fill_rows(
        self, records: list[dict[str, Any]], bound: float, random: np.random.Generator
    ) -> None:
        """Logits, deltas and radii by torch, after the contract's recursion."""
        t = {name: torch.from_numpy(array).double() for name, array in self.tensors.items()}
        a = {
            "stem": abs_norm(self.tensors["stem.weight"], 1),
            "down": abs_norm(self.tensors["down.weight"], 2),
            "dense": abs_norm(self.tensors["dense.weight"], 1),
        }
        limits = {record["name"]: record["bound"] for record in records}
        x = torch.from_numpy(self.images).permute(0, 3, 1, 2).double() / 255
        error = UNIT * norms(x) * (1 + 1e-12)
        error = (error + gamma(2) * (norms(x) + 4.0)) * (1 + 1e-12)
        x = x - 0.5
        for name, stride, padding in (("stem", 1, 1), ("down", 2, 0), ("dense", 0, 0)):
            weight, bias = t[f"{name}.weight"], t[f"{name}.bias"]
            inputs = norms(x)
            if stride:
                x = F.conv2d(x, weight, bias, stride, padding)
            else:
                x = F.linear(x.flatten(1), weight, bias)
            positions = math.prod(x.shape[2:])
            own = a[name] * inputs + float(bias.norm()) * math.sqrt(positions)
            error = limits[name] * error + gamma(weight[0].numel() + 1) * own * (1 + 1e-12)
            error *= 1 + 1e-12
            if name != "down":
                first, second = x.chunk(2, 1)
                x = torch.cat([torch.maximum(first, second), torch.minimum(first, second)], 1)
        self.logits = logits = (x @ t["head.weight"].T + t["head.bias"]).numpy()
        rho = norms(t["head.weight"]) * norms(x)[:, None] + abs(self.tensors["head.bias"])
        rho = rho * gamma(13) * (1 + 1e-12)
        predicts = logits.argmax(1)
        self.labels = predicts.copy()
        wrong = random.random(IMAGES) < 0.2
        self.labels[wrong] = (predicts[wrong] + 1) % CLASSES
        weight = self.tensors["head.weight"].astype(float)
        for index, j in enumerate(predicts):
            best: tuple[float, ...] | None = None
            for i in range(CLASSES):
                if i == j:
                    continue
                distance = float(np.linalg.norm(weight[j] - weight[i])) * (1 + 1e-14)
                constant = bound * distance * (1 + 1e-15)
                margin = float(logits[index, j] - logits[index, i])
                delta = distance * float(error[index]) + rho[index, j] + rho[index, i]
                delta = (delta + UNIT * margin) * (1 + 1e-12)
                radius = down(down(margin - delta) / constant)
                if best is None or radius < best[0]:
                    best = (radius, i, margin, constant, delta)
            assert best is not None
            radius, i, margin, constant, delta = best
            correct = self.labels[index] == j
            self.rows.append(
                {
                    "idx": str(index),
                    "label": str(self.labels[index]),
                    "predict": str(j),
                    "radius": f"{radius if correct else 0.0:.17g}",
                    "correct": str(int(correct)),
                    "time": "0.001",
                    "binding": str(int(i)),
                    "margin": f"{margin:.17g}",
                    "lipschitz": f"{constant:.17g}",
                    "delta": f"{delta:.17g}",
                    "radius_float": f"{radius * INSIDE if correct else 0.0:.17g}",
                }
            )

    def set_row(self, index: int, **values: float | int | str) -> None:
        for key, value in values.items():
            shown = f"{value:.17g}" if isinstance(value, float) else str(value)
            self.rows[index][key] = shown

    def follow(self, index: int) -> None:
        """Make the radius of a row follow from its margin, delta and constant."""
        margin, delta, constant = (
            float(self.rows[index][key]) for key in ("margin", "delta", "lipschitz")
        )
        radius = down(down(margin - delta) / constant)
        self.set_row(index, radius=radius, radius_float=radius * INSIDE)

    def correct_row(self) -> int:
        """The first correct row with a radius."""
        return next(n for n, row in enumerate(self.rows) if float(row["radius"]) > 0)

    def recount(self) -> None:
        """Totals that fit the rows."""
        count = len(self.rows)
        self.certificate["clean_accuracy"] = sum(row["correct"] == "1" for row in self.rows) / count
        for text, epsilon in (("4/255", 4 / 255), ("0.05", 0.05)):
            for key, column in (("vra", "radius"), ("vra_float", "radius_float")):
                counted = sum(float(row[column]) > epsilon for row in self.rows)
                self.certificate[key][text] = counted / count
            self.certificate["vra_unsound"][text] = self.certificate["vra"][text]

    def dataset_sha256(self) -> str:
        digest = hashlib.sha256(b"certline dataset 1\n")
        for label, image in zip(self.labels, self.images, strict=True):
            digest.update(struct.pack("<qIII", label, *image.shape) + image.tobytes())
        return digest.hexdigest()

    def table(self) -> str:
        names = HEADER.split()
        lines = ["\t".join(names), *("\t".join(row[name] for name in names) for row in self.rows)]
        return "\n".join([*lines, *self.extra_lines]) + "\n"

    def write(self, directory: Path, rehash: bool = True) -> Path:
        """Write the three files and certificate.json, with fresh hashes unless told otherwise."""
        directory.mkdir(exist_ok=True)
        contents = {
            "model.safetensors": save(self.tensors),
            "config.yaml": self.config,
            "images.tsv": self.table().encode(),
        }
        for name, content in contents.items():
            (directory / name).write_bytes(content)
        if rehash:
            hashes = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
            self.certificate["files"] = hashes
            self.certificate["weights_sha256"] = hashes["model.safetensors"]
        (directory / "certificate.json").write_text(json.dumps(self.certificate))
        return directory

    def write_data(self, path: Path) -> Path:
        np.savez(path, image=self.images, label=self.labels)
        return path


MADE: dict[int, Mini] = {}


def layer(
    name: str, kind: str, shape: list[int], attributes: dict[str, Any], bound: float
) -> dict[str, Any]:
    return {
        "name": name,
        "kind": kind,
        "input_shape": shape,
        "attributes": attributes,
        "bound": bound,
        "method": "mini",
        "evidence": {},
    }


def abs_norm(weight: np.ndarray, stride: int) -> float:
    """sqrt(‖S‖₁ ‖S‖_∞); with stride = kernel the kernel reshaped, else taps summed."""
    sums = np.abs(weight.astype(float))
    if weight.ndim == 4:
        sums = sums.reshape(len(sums), -1) if stride > 1 else sums.sum((2, 3))
    return math.sqrt(sums.sum(0).max() * sums.sum(1).max())


def norms(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(1).norm(dim=1)


def down(x: float) -> float:
    return math.nextafter(x, -math.inf)
