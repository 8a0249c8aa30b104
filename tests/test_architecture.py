"""The rooms of the house: imports point downwards, doors are thin, heavy libraries are optional."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = {
    "pipeline.types": 0,
    "pipeline.stopwatch": 0,
    "pipeline.distributed": 0.2,
    "pipeline.registry": 0,
    "pipeline.options": 0,
    "pipeline.config": 0.5,
    "pipeline.rank_log": 0.3,
    "pipeline.progress": 0.5,
    "pipeline.lipschitz": 1,
    "pipeline.layers": 1.5,  # layers know the mathematics, the mathematics knows no layers
    "pipeline.objectives": 2,
    "pipeline.models": 2,
    "pipeline.data": 2,
    "pipeline.checkpoint": 2,
    "pipeline.training": 3,
    "pipeline.certify": 3,
    "pipeline.outcome": 4,
    "pipeline.diffusion": 4,
    "pipeline.launchers": 5.5,  # they start runs
    "pipeline.run": 5,
    "pipeline.sweep": 5,
    "launch": 6,
    "tools": 6,
}
SOURCES = sorted(
    path for folder in ("pipeline", "launch", "tools") for path in (ROOT / folder).rglob("*.py")
)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str:
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "pipeline" else parts[0]


def imported_modules(path: Path) -> set[str]:
    """Every module that the file imports, at the top or inside a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            found.add(node.module)
            if node.module == "pipeline":
                found |= {f"pipeline.{alias.name}" for alias in node.names}
    return found - {"pipeline"}


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_point_down(path: Path) -> None:
    me = room(module_name(path))
    if me == "pipeline":
        assert path.read_text() == "", "pipeline/__init__.py is empty"
        return
    for name in imported_modules(path):
        top = name.split(".")[0]
        assert top not in {"launch", "tools", "tests"}, f"{me} imports the door {name}"
        if top != "pipeline" or room(name) == me:
            continue
        assert me != "pipeline.verify", f"the independent check imports {name}"
        if room(name) == "pipeline.verify":
            assert FLOORS[me] == 6, f"{me} imports the independent check"
            continue
        assert FLOORS[room(name)] < FLOORS[me], f"{me} imports {name}, which is not below it"


def test_doors_open_in_a_checkout_that_is_not_installed() -> None:
    doors = [*(ROOT / "launch").glob("*.py"), *(ROOT / "tools").glob("*.py")]
    for door in doors:
        text = door.read_text()
        assert "sys.path.insert(0" in text or "from pipeline" not in text, door


def test_there_is_no_circle() -> None:
    imports = {module_name(path): imported_modules(path) for path in SOURCES}
    graph = {
        name: {other for other in others if other in imports and other != name}
        for name, others in imports.items()
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " imports ".join([*trail[trail.index(name) :], name])
        if name not in done:
            for other in graph[name]:
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_files_are_small_and_say_what_they_are(path: Path) -> None:
    text = path.read_text()
    limit = 100 if path.relative_to(ROOT).parts[0] in {"launch", "tools"} else 500
    assert len(text.splitlines()) < limit + 1, f"{path} has over {limit} lines"
    if text:
        assert ast.get_docstring(ast.parse(text)), f"{path} has no docstring"


def run_python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


BLOCK = """
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def absent(name, *place):
    return None if name.split(".")[0] in BLOCKED else find(name, *place)
PathFinder.find_spec = absent
"""


def test_no_room_loads_an_optional_library_by_being_imported() -> None:
    modules = [module_name(path) for path in SOURCES if path.parts[len(ROOT.parts)] == "pipeline"]
    lazy = {"ffcv", "deepspeed", "submitit", "diffusers"}
    needs_ffcv = {f"pipeline.data.{name}" for name in ("ops", "ffcv_loader")}
    code = "import importlib, sys\n"
    code += f"for m in {[m for m in modules if m not in needs_ffcv]}: importlib.import_module(m)\n"
    code += f"print(sorted({lazy} & set(sys.modules)))"
    assert run_python(code).strip() == "[]"


def test_the_independent_check_loads_nothing_of_ours_and_no_torch() -> None:
    modules = [
        module_name(path) for path in SOURCES if module_name(path).startswith("pipeline.verify")
    ]
    code = f"import importlib, sys\nfor m in {modules}: importlib.import_module(m)\n"
    code += "print([m for m in sys.modules if m == 'torch' or m.startswith('pipeline.')])"
    loaded = ast.literal_eval(run_python(code))
    assert loaded and all(name.startswith("pipeline.verify") for name in loaded)


@pytest.mark.parametrize("blocked", ["ffcv", "deepspeed", "submitit", "diffusers"])
def test_training_and_certifying_work_without(blocked: str, tmp_path: Path) -> None:
    code = f"BLOCKED = {{{blocked!r}}}\n" + BLOCK
    code += f"""
import json, pathlib
from pipeline import config, run
settings = config.load(pathlib.Path("configs/digits.yaml"), [
    "--output", {str(tmp_path)!r}, "--training.epochs", "1", "--training.warmup_epochs", "0",
    "--model.width", "8", "--model.depth", "1", "--model.features", "32"])
assert run.main(settings).finished
certificate = json.loads((settings.directory / "certificate" / "certificate.json").read_text())
print("images", certificate["num_images"])
"""
    assert "images 360" in run_python(code)
