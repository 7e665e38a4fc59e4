"""What is built: the packages and their data, nothing else, with every import declared."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from detectron2_sam.commands import doctor

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("amsam", "detectron2_sam", "plug", "possam", "sam_common")
DISTRIBUTION = {"cv2": "opencv-python-headless", "open_clip": "open-clip-torch", "PIL": "pillow", "yaml": "pyyaml"}
"""Import -> what is installed for it, where that is not its name with `-` for `_`."""
UNDECLARED = {"detectron2", "panopticapi", "triton"}  # on no registry (two); comes with torch where there are GPUs
UNSEEN = {"tensorboard"}  # torch.utils.tensorboard imports it


def declared(key: str) -> set[str]:
    """Names in `dependencies` or in all `optional-dependencies` of pyproject.toml."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 reads TOML")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][key]
    lines = project if isinstance(project, list) else [line for extra in project.values() for line in extra]
    return {normal(re.match(r"[\w.-]+", line)[0]) for line in lines}  # type: ignore[index]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(*, at_once: bool) -> set[str]:
    """Distributions that the installed packages import outside functions, or anywhere."""
    found = set()
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        nodes: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
        while nodes:
            node = nodes.pop()
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add((node.module or "").split(".")[0])
            if not (at_once and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
                nodes += ast.iter_child_nodes(node)
    others = found - set(sys.stdlib_module_names) - set(PACKAGES) - UNDECLARED
    return {normal(DISTRIBUTION.get(name, name)) for name in others}


def test_every_import_is_declared() -> None:
    """What is imported unasked is a dependency, the rest one or an extra; nothing is declared that nobody imports."""
    dependencies = declared("dependencies")
    assert imported(at_once=True) <= dependencies
    assert imported(at_once=False) <= dependencies | declared("optional-dependencies")
    assert dependencies <= imported(at_once=False) | UNSEEN


def test_the_doctor_looks_for_every_dependency() -> None:
    """The list serves a clone that is not installed, and so has no metadata."""
    assert {normal(name) for name in doctor.PACKAGES} == declared("dependencies")


def test_what_is_installed_and_what_the_source_distribution_holds(tmp_path: Path) -> None:
    """Sources of kernels, configurations, vocabularies, weights, markers of types; no tests, no trainers of weights."""
    commands = ["egg_info", "-e", tmp_path, "sdist", "-d", tmp_path, "build_py", "-d", tmp_path / "lib"]
    built = subprocess.run(
        [sys.executable, "setup.py", "-q", *map(str, commands)], cwd=ROOT, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    lib = tmp_path / "lib"
    installed = {str(path.relative_to(lib)) for path in lib.rglob("*") if path.is_file()}
    data = {
        path.relative_to(ROOT).as_posix()
        for folder in PACKAGES
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert data <= installed and len([name for name in data if name.endswith("py.typed")]) == len(PACKAGES)
    shipped = [path for path in (ROOT / "configs").rglob("*") if path.suffix in (".py", ".txt", ".yaml")]
    shipped += (ROOT / "weights").glob("*.safetensors")
    names = {path.relative_to(ROOT).as_posix() for path in shipped}
    assert {name for name in installed if name.startswith("sam_common/share/")} == {
        f"sam_common/share/{name}" for name in names
    }
    assert {name.split("/")[0] for name in installed} == set(PACKAGES)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as source:
        held = {name.partition("/")[2] for name in source.getnames()}
    assert data | names | {"setup.py", "pyproject.toml", "README.md", "LICENSE", "CITATION.cff"} <= held
