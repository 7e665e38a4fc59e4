"""Packages that are extras, for their licence or their weight: nothing of the project imports them unasked."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = {"transformers", "ultralytics", "faster_coco_eval", "zlib_ng", "pillow_heif"}
PACKAGES = ("amsam", "plug", "possam", "sam_common")


def modules(*packages: str) -> Iterator[str]:
    for path in sorted(path for package in packages for path in (ROOT / package).rglob("*.py")):
        yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported_at_once(source: str) -> Iterator[str]:
    """The packages that importing a file imports: not those inside functions."""
    nodes = list(ast.parse(source).body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            nodes += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]


def test_no_file_imports_an_extra_when_it_is_imported() -> None:
    """In any package, that of the plug-in too: a statement outside a function is read by whoever imports the file."""
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for package in (*PACKAGES, "detectron2_sam")
        for path in (ROOT / package).rglob("*.py")
        for name in imported_at_once(path.read_text())
        if name in EXTRAS
    }
    assert not wrong


def test_importing_every_module_leaves_the_extras_out() -> None:
    """Of the AGPL one not even others that we import may; open_clip imports transformers itself where it is."""
    names = [name for name in modules(*PACKAGES) if importlib.util.find_spec(name.split(".")[0])]
    absent = {"ultralytics"} if importlib.util.find_spec("transformers") else {"ultralytics", "transformers"}
    code = (
        f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
        f"print(sorted({absent!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "[]", done.stderr[-2000:] + done.stdout


def test_importing_every_module_needs_no_unix() -> None:
    """Without the modules and signals that Windows lacks; where it needs them, fvcore has its own way there."""
    names = [name for name in modules(*PACKAGES, "detectron2_sam") if ".plugin" not in name and "__main__" not in name]
    code = (
        "import importlib, signal, sys, fvcore.common.config\n"
        "sys.modules |= dict.fromkeys(('resource', 'fcntl'))\n"
        "for name in ('SIGHUP', 'SIGUSR1', 'SIGUSR2', 'SIGPIPE', 'SIGKILL'): delattr(signal, name)\n"
        f"for name in {names!r}: importlib.import_module(name)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
