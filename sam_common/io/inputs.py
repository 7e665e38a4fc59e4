"""The pictures and videos that a run is given: which files they are, and what their results are called."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

VIDEO_SUFFIXES = frozenset((".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv"))


@dataclass(frozen=True)
class Input:
    """One picture or video.

    Attributes:
        path: the file.
        relative: its path below the folder that all inputs share, with `/`.
        name: what its results are called below the output folder: `relative` without the suffix, or with it where
            two inputs differ in nothing else.
    """

    path: Path
    relative: str
    name: str

    @property
    def is_video(self) -> bool:
        return self.path.suffix.lower() in VIDEO_SUFFIXES
