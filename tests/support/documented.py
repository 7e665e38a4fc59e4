"""What the documentation shows a reader: its commands and its files. The one place that takes them from the pages."""

from __future__ import annotations

import importlib
import re
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from detectron2_sam.program import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "datasets/README.md", "weights/README.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
CONFIGS = [path for path in sorted((ROOT / "configs").rglob("*")) if path.suffix in (".yaml", ".py")]

_PROGRAM = r"(?:detectron2-sam|python|torchrun|make|pip|source|export)\b"


@dataclass(frozen=True)
class Command:
    """A command line: the file that shows it, from the root of the repository, and its words."""

    where: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(self.words)

    @property
    def torchrun(self) -> bool:
        return self.words[0] == "torchrun"

    @property
    def arguments(self) -> tuple[str, ...]:
        """What follows `detectron2-sam`, however the program is spelled; nothing for other programs."""
        first, *rest = self.words
        if first == "detectron2-sam":
            return tuple(rest)
        if "detectron2_sam" in rest:  # python -m detectron2_sam, with torchrun too
            return tuple(rest[rest.index("detectron2_sam") + 1 :])
        script = Path(rest[0]) if first == "python" else Path()
        if script.parts[:1] == ("datasets",):
            return ("prepare", script.stem.removeprefix("prepare_"), *rest[1:])
        if script.parts[:1] == ("tools",):
            return ("train" if script.stem == "train_net" else script.stem.replace("_", "-"), *rest[1:])
        return ()


def texts() -> dict[str, str]:
    """The pages by their names from the root."""
    return {_name(path): path.read_text(encoding="utf-8") for path in PAGES}


def code_blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language, in their order."""
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def named_files(text: str) -> dict[str, str]:
    """The YAML files that a page shows under their names."""
    return dict(re.findall(r"`(\w+\.yaml)`:\n\n```yaml\n(.*?)```", text, flags=re.DOTALL))


def shell_commands(text: str, where: str = "") -> list[Command]:
    """The command lines of the blocks for a shell."""
    return _commands([line for block in code_blocks(text, "bash") for line in _joined(block).splitlines()], where)


def prose_commands(text: str, where: str = "") -> list[Command]:
    """Those beside the blocks: indented, or within a sentence.

    Without arguments a command in a sentence is only its name, and with an ellipsis it is not whole: neither counts.
    """
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    lines = re.findall(rf"^    +({_PROGRAM}.+)$", _joined(prose), re.MULTILINE)
    spans = re.findall(rf"(?<!`)`({_PROGRAM}\s[^`]+)`(?!`)", prose)
    lines += [span for span in spans if "…" not in span and not re.fullmatch(r"(detectron2-sam|python -m) \S+", span)]
    return _commands(lines, where)


@cache
def commands() -> tuple[Command, ...]:
    """All of the pages, of the comments that head the configurations, and of the help."""
    found = []
    for where, text in texts().items():
        found += [*shell_commands(text, where), *prose_commands(text, where)]
    for path in CONFIGS:
        text = _joined(re.sub(r"\\\n#", r"\\\n", path.read_text(encoding="utf-8")))
        found += _commands(re.findall(rf"^(?:#  +|#.*: |    )({_PROGRAM} .+)$", text, re.MULTILINE), _name(path))
    for module, _ in COMMANDS.values():
        text = _joined(importlib.import_module(module).__doc__ or "")
        found += _commands(re.findall(rf"^    ({_PROGRAM} .+)$", text, re.MULTILINE), module)
    return tuple(found)


def _joined(text: str) -> str:
    return re.sub(r"\\\n\s*", " ", text)


def _commands(lines: list[str], where: str) -> list[Command]:
    return [
        Command(where, tuple(words))
        for line in lines
        for part in line.split(" && ")
        if (words := shlex.split(part, comments=True))
    ]


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()
