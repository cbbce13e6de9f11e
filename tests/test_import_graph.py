"""The layers of the house: imports only point down."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sklearn_flows

PACKAGE = Path(sklearn_flows.__file__).parent

# From the ground up; a module imports from its own layer and those below. New modules get their place here.
LAYERS = [
    {"transforms", "nets", "distributions", "_workspace", "_fusion", "_parallel"},
    {"flows"},
    {"compiled"},
    {"utils", "datasets"},
    {"encoding"},
    {"training"},
    {"cross_fitting"},
    {"density", "metrics"},
    {"conditional", "ensemble", "variational"},
    {"outlier"},
]
LEVELS = {name: level for level, names in enumerate(LAYERS) for name in names}
TORCH_ONLY = LAYERS[0] | LAYERS[1]

MODULES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports_of(path):
    """Absolute names that a file imports, as pairs of module and imported name (None for ``import module``)."""
    package = ("sklearn_flows", *path.relative_to(PACKAGE).parent.parts)
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.extend((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*start, *([node.module] if node.module else [])])
            found.extend((module, alias.name) for alias in node.names)
    return found


def part_of_package(module, name):
    """The top-level name of the package that an import reaches, or None for other packages."""
    parts = [*module.split("."), *([name] if name else [])]
    return parts[1] if parts[0] == "sklearn_flows" and len(parts) > 1 else None


def test_imports_are_read_rightly(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    (tmp_path / "training").mkdir()
    path = tmp_path / "training" / "_loop.py"
    path.write_text("import os.path\nfrom ..flows import Flow\nfrom .. import nets\ndef f():\n    from ._rows import a, b\n")
    expected = {
        ("os.path", None): None,
        ("sklearn_flows.flows", "Flow"): "flows",
        ("sklearn_flows", "nets"): "nets",
        ("sklearn_flows.training._rows", "a"): "training",
        ("sklearn_flows.training._rows", "b"): "training",
    }
    assert {found: part_of_package(*found) for found in imports_of(path)} == expected


@pytest.mark.parametrize("module", [name for name in MODULES if name != "__init__"])
def test_imports_only_point_down(module):
    own = module.split(".")[0]
    assert own in LEVELS
    reached = {part_of_package(*found) for found in imports_of(MODULES[module])} - {None}
    assert {part for part in reached if LEVELS.get(part, len(LAYERS)) > LEVELS[own]} == set()


@pytest.mark.parametrize("module", [name for name in MODULES if name.split(".")[0] in TORCH_ONLY])
def test_the_ground_floor_does_not_know_scikit_learn_or_tables(module):
    reached = {found.split(".")[0] for found, _ in imports_of(MODULES[module])}
    # torch has no quantiles of Student's t.
    allowed = {"numpy", "scipy"} if module == "distributions" else set()
    assert reached & {"sklearn", "pandas", "joblib", "numpy", "scipy", "numba"} <= allowed


@pytest.mark.parametrize("module", [name for name in MODULES if name.split(".")[0] == "compiled"])
def test_kernels_do_not_know_scikit_learn_or_tables(module):
    assert {found.split(".")[0] for found, _ in imports_of(MODULES[module])} & {"sklearn", "pandas", "joblib", "scipy"} == set()


@pytest.mark.parametrize("module", [name for name in MODULES if name.split(".")[0] == "encoding"])
def test_the_encoding_does_not_know_flows_or_torch(module):
    imports = imports_of(MODULES[module])
    assert {found.split(".")[0] for found, _ in imports} & {"torch"} == set()
    assert {part_of_package(*found) for found in imports} & TORCH_ONLY == set()


@pytest.mark.parametrize("module", [name for name in MODULES if name != "utils._sklearn"])
def test_private_names_of_scikit_learn_are_imported_in_one_file_only(module):
    private = [
        (found, name)
        for found, name in imports_of(MODULES[module])
        if found.split(".")[0] == "sklearn" and any(part.startswith("_") for part in f"{found}.{name or ''}".split("."))
    ]
    assert private == []


def test_importing_the_package_needs_no_heavy_packages():
    # torch itself imports tqdm, and scikit-learn pandas, where they are installed: so all are made absent, and what counts
    # is who asks for them.
    code = """
import builtins, sys
heavy = ("matplotlib", "numba", "pandas", "polars", "tqdm")
sys.modules.update(dict.fromkeys(heavy))
askers, original = {name: set() for name in heavy}, builtins.__import__
def spy(name, globals=None, locals=None, fromlist=(), level=0):
    if level == 0 and name.split(".")[0] in heavy:
        askers[name.split(".")[0]].add((globals or {}).get("__name__", "?"))
    return original(name, globals, locals, fromlist, level)
builtins.__import__ = spy
import sklearn_flows
assert sklearn_flows.__all__
assert "torch.hub" in askers["tqdm"], "the spy is blind"
assert not askers["matplotlib"] | askers["numba"], askers
assert not any(asker.startswith("sklearn_flows") for names in askers.values() for asker in names), askers
loaded = [name for name in ("torch._dynamo", "torch._inductor", "zuko") if name in sys.modules]
assert not loaded, loaded
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
