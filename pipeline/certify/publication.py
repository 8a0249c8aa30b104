"""A certified network as a folder to hand on: weights, config, and a model card that says only
what its certificate says.

Notable: the weights are the certificate's own file, copied byte for byte and compared by hash, so
what is handed on is what was certified. The card's numbers are read from the certificate.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

from pipeline.certify.certificate import Certificate, load_network, read_certificate, sha256_of

FILES = ("model.safetensors", "config.yaml", "certificate.json")
CARD = "README.md"


def publish(certificate_dir: Path, out: Path) -> Path:
    """Copy weights, config and certificate.json of a certificate, and write the model card.

    Args:
        certificate_dir: of a finished certification.
        out: a folder that does not exist yet; it appears whole or not at all.

    Returns:
        The path of the card.

    Raises:
        ValueError: no certificate there, weights that are not the certified ones, or `out` exists.
    """
    certificate = read_certificate(certificate_dir)
    network = load_network(certificate_dir)  # hashes, shapes, finite values
    if out.exists():
        raise ValueError(f"{out} exists already: choose another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    for name in FILES:
        shutil.copyfile(certificate_dir / name, beside / name)
    if sha256_of(beside / "model.safetensors") != certificate.weights_sha256:
        raise ValueError(f"{certificate_dir} changed while it was copied: try again")
    parameters = sum(math.prod(tensor.shape) for tensor in network.tensors().values())
    (beside / CARD).write_text(model_card(certificate, parameters))
    beside.rename(out)
    return out / CARD


def model_card(certificate: Certificate, parameters: int) -> str:
    """Markdown with the front matter that model hubs read.

    Args:
        certificate: what is known of the network.
        parameters: stored numbers, folded.
    """
    options = {key: value for key, value in certificate.model.items() if key != "name"}
    channels, height, width = certificate.input["shape"]
    accuracies = "\n".join(
        f"| VRA at {epsilon} | {100 * share:.2f} % |" for epsilon, share in certificate.vra.items()
    )
    kinds = sorted({layer["kind"] for layer in certificate.layers})
    return f"""---
library_name: certline
pipeline_tag: image-classification
tags: [certified-robustness, lipschitz, l2]
---

# {certificate.model["name"]}

An image classifier with proved l2-robustness, {certificate.num_classes} classes, images of
{channels}×{height}×{width}. Options: `{json.dumps(options)}`. {parameters:,} numbers are stored,
all parametrisations folded.

| on {certificate.num_images} images of `{certificate.dataset["spec"]}` | |
|---|---|
| clean accuracy | {100 * certificate.clean_accuracy:.2f} % |
{accuracies}

VRA at ε: the share of images that are classified correctly, and provably so at every point closer
than ε, an l2 distance in the space {certificate.input["space"]}.

> {certificate.claim}

Lipschitz bound of the trunk: {certificate.lipschitz_bound:.7g}, a product of proved norms, none of
them by power iteration. Kinds of layers: {", ".join(kinds)}.

## What this does not say

Nothing about other distances, about images other than those certified, about a float32 execution at
the attacked point, or about what happened to a picture before it became uint8 pixels.

## Files

- `model.safetensors`: the certified function, sha256 `{certificate.weights_sha256}`
- `certificate.json`: layers, bounds and totals; images have the sha256
  `{certificate.dataset_sha256}`
- `config.yaml`: how it was trained

```python
from pathlib import Path
from pipeline.certify.certificate import load_network
network = load_network(Path("."))  # checks the hash
# images: [B, {channels}, {height}, {width}] float64, v/255
logits = network.logits(network.trunk(images))
```
"""
