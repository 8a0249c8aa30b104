"""attack.json and its section of report.html: empirical accuracy beside VRA."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.certify.block_store import write_atomically
from pipeline.certify.reporting.html import section, table
from pipeline.certify.reporting.report import ATTACK

FORMAT = "certline attack 1"


def write_attack(directory: Path, result: dict[str, Any]) -> None:
    """Write attack.json and put the section into report.html, in place of an older one."""
    text = json.dumps({"format": FORMAT, **result}, indent=2, allow_nan=False) + "\n"
    write_atomically(directory / "attack.json", text)
    path = directory / "report.html"
    if not path.is_file():
        return
    html = path.read_text(encoding="utf-8")
    begin_mark, end_mark = ATTACK
    before, begin, rest = html.partition(begin_mark)
    _, end, after = rest.partition(end_mark)
    if begin and end:
        write_atomically(path, before + begin + attack_section(result) + end + after)


def attack_section(result: dict[str, Any]) -> str:
    """The HTML of the results."""
    rows = [
        (
            f"ε = {text}",
            f"{at['vra']:.2%}",
            f"{at['empirical_accuracy']:.2%}",
            f"{at['certified_fallen']} of {at['certified']:,}",
        )
        for text, at in result["epsilons"].items()
    ]
    own = result["own_radius"]
    rows.append(
        ("each at its own radius", "", "", f"{own['certified_fallen']} of {own['certified']:,}")
    )
    settings = result["settings"]
    curve = ", ".join(f"{size:g}: {share:.1%}" for size, share in result["pgd10"])
    slopes = [
        (layer["name"], f"{layer['found']:.6g}", f"{layer['bound']:.6g}")
        for layer in result["layers"]
    ]
    trunk = result["trunk"]
    slopes.append(("all up to the head", f"{trunk['found']:.6g}", f"{trunk['bound']:.6g}"))
    return section(
        "Attacked",
        f"<p>{result['images']:,} images of the set, by PGD ({settings['restarts']} restarts), "
        f"APGD-CE and APGD-T of {settings['steps']} steps each. No attack proves anything; one "
        "that succeeded inside a certified radius would refute the certificate.</p>"
        + table(["", "certified", "still correct", "certified and fallen"], rows, numeric=True)
        + (f"<p>Correct after PGD-10, by ε: {curve}.</p>" if curve else "")
        + "<p>Steepest places that gradients found, and the certified constants:</p>"
        + table(["layer", "found", "bound"], slopes, numeric=True),
    )


def text_summary(result: dict[str, Any]) -> str:
    """What is printed at the end."""
    lines = [f"  {'epsilon':<12}{'VRA':>10}{'attacked':>12}{'certified and fallen':>24}"]
    for text, at in result["epsilons"].items():
        fallen = f"{at['certified_fallen']} of {at['certified']}"
        lines.append(f"  {text:<12}{at['vra']:>10.2%}{at['empirical_accuracy']:>12.2%}{fallen:>24}")
    own = result["own_radius"]
    fallen = f"{own['certified_fallen']} of {own['certified']}"
    lines.append(f"  {'own radius':<12}{'':>22}{fallen:>24}")
    trunk = result["trunk"]
    lines.append(f"  steepest place found {trunk['found']:.6g}, certified {trunk['bound']:.6g}")
    return "\n".join(lines)


def refuted(result: dict[str, Any]) -> str | None:
    """The sentence that says what refutes the certificate; None if nothing does."""
    if result["refuting"]:
        fall = result["refuting"][0]
        return (
            f"image {fall['index']} falls to {fall['search']} at the distance "
            f"{fall['distance']:.6g}, inside its certified radius"
        )
    for layer in [*result["layers"], {"name": "the trunk", **result["trunk"]}]:
        if not layer["found"] <= layer["bound"]:
            return (
                f"{layer['name']} is as steep as {layer['found']!r} somewhere, above its certified "
                f"constant {layer['bound']!r}"
            )
    return None
