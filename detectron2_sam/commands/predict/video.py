"""Reading and writing videos with OpenCV, one frame in memory at a time."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean

import cv2
import numpy as np

from sam_common.errors import UserError
from sam_common.io.files import refuse_special_file

_FORMATS = "asf,avi,flv,gif,h264,hevc,m4v,matroska,mov,mp4,mpeg,mpegts,mpegvideo,ogg,webm"
"""What FFmpeg may take a file for, by its own names. Others are lists of files and addresses, which it would open."""

_DEFAULT_FPS = 25.0  # of files that do not say
_MOST_FPS = 240.0
LONGEST_STILL = 60.0  # seconds
_SHORTFALL = 0.05  # seconds by which sound, say, may be longer than the pictures


class VideoReader:
    """The frames of a video, uint8 RGB [H, W, 3], upright.

    Opening reads through the file once for the times of its frames: only they tell whether its rate is constant.

    Attributes:
        fps: frames per second; of a video of variable rate that of its fast parts.
        times: when each frame is shown, seconds.
        copies: how often each frame must be written, at `fps`, to stay for its time; all 1 at a constant rate.
        is_still: whether a frame stays for more than a minute; of it that is what `copies` gives it.
        num_frames: how many the file says it has; 0 where it does not say.
        fault: after the last frame: one line if the file broke off before the frames that it promises, else "".

    Raises:
        UserError: the file is missing or no video.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = path
        self.fault = ""
        refuse_special_file(path)
        if not Path(path).is_file():
            raise UserError(f"{path}: there is no such video file")
        # Silent: what is wrong is said here, in one line.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", f"format_whitelist;{_FORMATS}")
        told = self._open()
        self.times: list[float] = []
        while self._capture.grab():
            self.times.append(self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
        self._capture.release()
        self._open()
        ok, self._first = self._capture.read()
        if not ok:
            raise UserError(f"{path} cannot be read as a video: no frame of it can be decoded")
        self.fps = frame_rate(self.times, told)
        if not _is_ascending(self.times):
            self.times = [number / self.fps for number in range(len(self.times))]
        self.copies = copies(self.times, self.fps)
        self.is_still = any(later - earlier > LONGEST_STILL for earlier, later in pairwise(self.times))

    def _open(self) -> float:
        """Starts from the first frame; returns the rate that the file states."""
        self._capture = cv2.VideoCapture(_utf8(self.path))
        if not self._capture.isOpened():
            raise UserError(f"{self.path} cannot be read as a video: it is damaged, or OpenCV lacks its codec")
        fps, count = (self._capture.get(key) for key in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
        fps = fps if math.isfinite(fps) and fps > 0 else _DEFAULT_FPS
        self.num_frames = max(0, int(count)) if math.isfinite(count) else 0
        self._promised = self.num_frames / fps  # seconds
        return fps

    def __iter__(self) -> Iterator[np.ndarray]:
        number, ok, frame = 0, True, self._first
        while ok and number < len(self.times):
            number += 1
            yield np.ascontiguousarray(frame[..., ::-1])  # OpenCV's are BGR
            ok, frame = self._capture.read()
        promised = max(self.num_frames - 1, len(self.times))  # containers count one too many at times
        if number < len(self.times) or (number < promised and not self._is_whole(number)):
            self.fault = f"{self.path} ends after {number} of {self.num_frames} frames; it is damaged"

    def _is_whole(self, number: int) -> bool:
        """Whether `number` frames, fewer than promised, last as long as promised.

        Many containers state a duration only, so that the number of frames is an estimate.
        """
        with open(self.path, "rb") as file:
            head = file.read(8)
        if head[4:] in _COUNTING or head.startswith(b"RIFF"):
            return False
        return self.times[number - 1] + 2 / self.fps + _SHORTFALL > self._promised

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self._capture.release()


_COUNTING = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
"""How MP4 and QuickTime files, which count their frames, may begin, after four bytes; AVI files begin with RIFF."""


def frame_rate(times: Sequence[float], told: float) -> float:
    """`told`, the rate that the file states, if its frames keep to it; else that of its fastest parts."""
    gaps = sorted(later - earlier for earlier, later in pairwise(times))
    positive = [gap for gap in gaps if gap > 0]
    if not positive or not _is_ascending(times) or (gaps[0] * told > 0.5 and gaps[-1] * told < 1.5):
        return told
    usual = positive[len(positive) // 10]
    fastest = 1 / mean(gap for gap in positive if gap < 1.5 * usual)
    return told if 0.9 < fastest / told < 1.1 else min(round(fastest, 3), _MOST_FPS)


def copies(times: Sequence[float], fps: float) -> list[int]:
    """How often each frame is written, at least once, to stay until the next one at `fps`, for a minute at most."""
    gaps = [min(later - earlier, LONGEST_STILL) for earlier, later in pairwise(times)]
    if all(0.5 < gap * fps < 1.5 for gap in gaps):
        return [1] * len(times)
    shown, written, numbers = 0.0, 0, []
    for gap in gaps:
        shown += gap
        numbers.append(max(1, round(shown * fps) - written))
        written += numbers[-1]
    return [*numbers, 1]


def _utf8(path: str | os.PathLike) -> str:
    """The path, refused if it is not UTF-8: OpenCV would end the process."""
    text = os.fspath(path)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{text} has a name that is not UTF-8, which OpenCV cannot open; rename it") from None
    return text


def _is_ascending(times: Sequence[float]) -> bool:
    return all(earlier <= later for earlier, later in pairwise(times))


class VideoWriter:
    """Writes uint8 RGB frames [H, W, 3] of one size to an MPEG-4 file.

    Raises:
        UserError: the file cannot be written; of a disk that filled up on the way this is known at the end only.
    """

    def __init__(self, path: str | os.PathLike, *, fps: float) -> None:
        self.path = path
        self.fps = fps
        self.num_frames = 0
        self._writer: cv2.VideoWriter | None = None

    def write(self, frame: np.ndarray, copies: int = 1) -> None:
        """Adds a frame `copies` times; the first one sets the size. Of an odd side the codec drops one pixel."""
        if self._writer is None:
            size = (frame.shape[1], frame.shape[0])
            self._writer = cv2.VideoWriter(_utf8(self.path), cv2.VideoWriter.fourcc(*"mp4v"), self.fps, size)
            if not self._writer.isOpened():
                raise UserError(f"cannot write the video {self.path}, {size[0]} × {size[1]} at {self.fps:g} frames/s")
        flipped = np.ascontiguousarray(frame[..., ::-1])
        for _ in range(copies):
            self._writer.write(flipped)
        self.num_frames += copies

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if self._writer is None:
            return
        self._writer.release()
        if kind is None and not self._is_whole():  # OpenCV's writer reports nothing
            full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise UserError(f"cannot write {self.path}: the video is not whole; is the disk full?") from full

    def _is_whole(self) -> bool:
        capture = cv2.VideoCapture(str(self.path))
        written = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        capture.release()
        return written >= self.num_frames
