"""The layers of the project, enforced by reading imports: tools → detectron2_sam → methods → sam_common → torch."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
METHODS = {"possam", "plug", "amsam"}
OURS = METHODS | {"sam_common", "detectron2_sam", "tools"}
MAY_IMPORT = {
    "sam_common": {"sam_common"},
    **{method: {method, "sam_common"} for method in METHODS},
    "detectron2_sam": METHODS | {"sam_common", "detectron2_sam", "detectron2"},
    "tools": OURS,
}


def imported_packages(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_a_package_imports_only_the_layers_below_it(package: str) -> None:
    """No file of a package names a package of the project, or Detectron2, that its layer may not use."""
    forbidden = (OURS | {"detectron2"}) - MAY_IMPORT[package]
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in (ROOT / package).rglob("*.py")
        for name in imported_packages(path.read_text())
        if name in forbidden
    }
    assert not wrong
