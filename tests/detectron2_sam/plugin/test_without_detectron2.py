"""What happens where Detectron2 is missing: one line that says so, and nothing else notices."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from detectron2_sam.commands import train as train_net
from sam_common.errors import UserError
from tests.detectron2_sam.plugin.conftest import HERE, INSTALLED

ROOT = HERE.parents[2]


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `import detectron2` fail as if it were not installed, whether it is or not."""
    for name in [name for name in sys.modules if name.split(".")[0] in ("detectron2", "detectron2_sam")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "detectron2", None)  # how Python marks a module that cannot be imported


@pytest.mark.skipif(INSTALLED, reason="Detectron2 is installed: all tests of the plug-in run")
def test_the_plug_in() -> None:
    """Stands for the files of tests that need Detectron2, so that their absence is seen."""
    files = len(list(HERE.glob("test_*.py"))) - 1
    pytest.skip(f"Detectron2 is not installed: {files} files of the plug-in's tests did not run (docs/detectron2.md)")


def test_the_import_says_what_is_missing(missing: None) -> None:
    """One line that names Detectron2 and where its installation guide is."""
    with pytest.raises(ModuleNotFoundError, match=r"needs Detectron2.*docs/detectron2\.md.*https://\S+$") as caught:
        import detectron2_sam.plugin  # noqa: F401
    assert "\n" not in str(caught.value)


def test_the_package_is_of_use_without_it(missing: None) -> None:
    """Its version and its methods are there; whoever asks for what plugs in is told the same line."""
    import detectron2_sam

    assert detectron2_sam.__version__ and detectron2_sam.methods.full_cfg().MODEL.POSSAM
    for name in ("register", "add_config"):
        with pytest.raises(ModuleNotFoundError, match=r"needs Detectron2.*docs/detectron2\.md"):
            getattr(detectron2_sam, name)


def test_asking_for_the_engine_says_the_same(missing: None) -> None:
    """`--engine detectron2` ends with that line before anything else is looked at."""
    with pytest.raises(UserError, match=r"needs Detectron2.*docs/detectron2\.md"):
        train_net.main(["--config-file", "configs/possam_T.yaml", "--engine", "detectron2"])


def test_auto_is_our_own_engine_without_a_word(missing: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody who never wanted Detectron2 hears of it."""
    assert train_net.choose_engine("auto") == "fabric"
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["ImportError", "AttributeError"])
def test_a_broken_detectron2_is_named_and_passed_by(
    kind: str, tmp_path: Path, missing: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One compiled for another torch does not import: `auto` says why and goes on with our own engine."""
    (tmp_path / "detectron2").mkdir()
    (tmp_path / "detectron2" / "__init__.py").write_text(f"raise {kind}('undefined symbol: _ZN5torch3fooE')")
    monkeypatch.delitem(sys.modules, "detectron2")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert train_net.choose_engine("auto") == "fabric"
    assert "undefined symbol" in caplog.text and "--engine fabric" in caplog.text


def test_nothing_else_imports_it() -> None:
    """Every other package and the tools import in a process where Detectron2 does not."""
    commands = "detectron2_sam.commands.train.run, detectron2_sam.commands.predict.run"
    modules = f"possam.config, sam_common.engine.build, {commands}"
    code = f"import sys; sys.modules['detectron2'] = None; import {modules}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
