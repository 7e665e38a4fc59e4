"""The rules of the house, enforced by reading the code: who imports whom, who names whom, who uses what."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
METHODS = {"possam", "plug", "amsam"}
OURS = METHODS | {"sam_common", "detectron2_sam"}
PLUGIN = ROOT / "detectron2_sam" / "plugin"
MAY_IMPORT = {
    "sam_common": {"sam_common"},
    **{method: {method, "sam_common"} for method in METHODS},
    **dict.fromkeys(("detectron2_sam", "tools", "datasets"), OURS),
}
WORDS = re.compile(r"amodal|few.?shot|possam|amsam|(?<![a-z])plug(?![a-z])", re.IGNORECASE)
"""A method's name, or a word that belongs to one."""


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, and what it takes from them, since that may be a module too."""
    for module, names in import_statements(path):
        yield module
        yield from (f"{module}.{name}" for name in names)


def import_statements(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The modules that a file imports, each with the names it takes from it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module, [alias.name for alias in node.names]


def test_every_name_imported_exists() -> None:
    """Late imports too, and those of benchmarks and launchers, which other tests need not reach."""
    wrong = {
        f"{path.relative_to(ROOT)}: {module}: {name}"
        for folder in [*OURS, "benchmarks", "tests", "tools", "datasets"]
        for path in files(folder)
        for module, names in import_statements(path)
        if module.split(".")[0] in OURS | {"benchmarks", "tests"}
        for name in names or [""]
        if not (name in defined_in(module) or path_of(f"{module}.{name}" if name else module).exists())
    }
    assert not wrong


@cache
def defined_in(module: str) -> set[str]:
    """The names that a module binds, and those that it imports when they are asked for."""
    if not (path := path_of(module)).is_file():
        return set()
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Dict) and path.name == "__init__.py":  # of `lazy_attributes`
            names |= {key.value for key in node.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
    return names


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_a_package_imports_only_the_layers_below_it(package: str) -> None:
    """No file names a package of the project that its layer may not use, and only the plug-in imports Detectron2."""
    wrong = {
        f"{path.relative_to(ROOT)}: {root}"
        for path in files(package)
        for root in {name.split(".")[0] for name in imports(path)}
        if root in OURS - MAY_IMPORT[package] or (root == "detectron2" and PLUGIN not in path.parents)
    }
    assert not wrong


def test_sam_common_names_no_method() -> None:
    """Neither in names nor in texts, comments and docstrings included: what it knows of methods is `Method`."""
    wrong = {
        f"{path.relative_to(ROOT)}:{token.start[0]}: {token.string.strip()[:80]}"
        for path in files("sam_common")
        for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)
        if token.type in (tokenize.NAME, tokenize.STRING, tokenize.COMMENT) and WORDS.search(token.string)
    }
    assert not wrong


def test_what_is_common_has_two_owners() -> None:
    """Every module of sam_common is used by two methods, or by a method and the commands or the plug-in, directly or
    through other modules of sam_common; what one alone uses belongs into its room."""
    users: dict[str, set[str]] = {module_name(path): set() for path in files("sam_common")}
    owners = [*METHODS, "detectron2_sam/commands", "detectron2_sam/plugin"]
    for owner in owners:
        reached = {name for path in files(owner) for name in imports(path)} & users.keys()
        while True:
            more = {name for module in reached for name in imports(path_of(module))} & users.keys()
            if more <= reached:
                break
            reached |= more
        for name in reached:
            users[name].add(owner)
    lonely = {name: used for name, used in users.items() if len(used) < 2 and not is_package(name)}
    assert not lonely


def path_of(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def is_package(module: str) -> bool:
    return path_of(module).name == "__init__.py"


def test_sam_common_has_few_loose_files() -> None:
    """Ten at most: the others have a room."""
    assert len([path for path in (ROOT / "sam_common").glob("*.py") if path.name != "__init__.py"]) <= 10
