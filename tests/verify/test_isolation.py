"""The verifier stands alone: no torch, no FFCV, no other module of the project."""

import json
import subprocess
import sys

PRINT = "import json, sys; print(json.dumps(sorted(sys.modules)))"
LOAD = f"import pipeline.verify, pipeline.verify.bar; {PRINT}"
ALLOWED = {"pipeline", "numpy", "mpmath", "scipy", "safetensors", "gmpy2", "cython_runtime"}


def loaded_by(program: str) -> list[str]:
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    return json.loads(ran.stdout)


def test_nothing_else_of_the_project_is_loaded() -> None:
    modules = loaded_by(LOAD)
    ours = [name for name in modules if name.split(".")[0] == "pipeline"]
    assert "pipeline.verify.gram" in ours
    assert all(name == "pipeline" or name.startswith("pipeline.verify") for name in ours), ours
    at_start = {name.split(".")[0] for name in loaded_by(PRINT)}
    tops = {name.split(".")[0] for name in modules} - at_start - ALLOWED
    foreign = {top for top in tops if top not in sys.stdlib_module_names and top[0] != "_"}
    assert not foreign
