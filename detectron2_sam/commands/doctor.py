"""Check this machine: what is installed, what is missing, and the command or file that fixes it.

    detectron2-sam doctor
    detectron2-sam doctor --config possam_B      # also what this configuration needs
    detectron2-sam doctor --json

Each line is marked `ok`, `--` (missing, but needed only by some things) or `!!` (missing and needed). Packages and the
embedded weights are always needed; with --config, so are the weights, data sets and device of that configuration.
Nothing is downloaded.

Exit status: 0 nothing needed is missing; 1 something is; 2 a mistake on the command line.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detectron2_sam.commands.cli import add_config, add_overrides, command_line
from sam_common.errors import UserError

if TYPE_CHECKING:
    from sam_common.io.weights import OfficialFile

# Whatever needs a package is imported where it is used: the doctor comes before they all are there.

PROJECT = "detectron2-sam"
PYTHON = (3, 10)
PACKAGES = (
    "torch", "torchvision", "numpy", "pillow", "PyYAML", "packaging", "segment-anything", "open_clip_torch", "timm",
    "fvcore", "pycocotools", "opencv-python-headless", "lightning-fabric", "scipy", "tensorboard", "safetensors",
    "huggingface_hub", "supervision", "tabulate", "tqdm", "jinja2", "matplotlib",
)  # fmt: skip
OPTIONAL = {
    "detectron2": "only --engine detectron2 needs it: docs/detectron2.md",
    "transformers": "only detectors transformers:NAME need it: pip install 'transformers>=4.51'",
    "ultralytics": "only detectors ultralytics:FILE.pt need it; it is AGPL-3.0: pip install 'ultralytics>=8.3'",
    "faster_coco_eval": "computes mask AP faster: pip install 'faster-coco-eval>=1.6'",
    "pillow_heif": "only .heic pictures need it: pip install pillow-heif",
    "zlib_ng": "reads panoptic PNGs faster: pip install 'zlib-ng>=0.5'",
    "panopticapi": "only comparing with the reference evaluation needs it: "
    "pip install git+https://github.com/cocodataset/panopticapi.git",
}
MODULES = {"opencv-python-headless": "cv2", "open_clip_torch": "open_clip", "pillow": "PIL", "PyYAML": "yaml"}
"""Package -> what it is imported as, where that is not its name with `_` for `-`."""


@dataclass
class Finding:
    """One line of the report.

    Attributes:
        section, name: what was looked at.
        found: whether it is here and usable.
        detail: version, path, or what is wrong.
        fix: the command to run or the file to get; "" where it is found.
        needed: whether the exit status depends on it.
        downloads: whether what needs it gets it by itself, where there is a network.
    """

    section: str
    name: str
    found: bool
    detail: str
    fix: str = ""
    needed: bool = False
    downloads: bool = False

    def __post_init__(self) -> None:
        if self.found:
            self.fix = ""

    def __str__(self) -> str:
        mark = "ok" if self.found else "!!" if self.needed else "--"
        return f"  {mark} {self.name:<26} {self.detail}" + (f"\n     → {self.fix}" if self.fix else "")


def versions() -> Iterator[Finding]:
    """Python and the packages, each against the bound that the project's own metadata states."""
    system = f"{platform.system()} {platform.release()}"
    fix = "it is written for Linux and macOS: elsewhere nothing has been tried, and a folder is not kept to one run"
    yield Finding("versions", "system", os.name == "posix", system, fix)
    fits = sys.version_info[:2] >= PYTHON
    fix = f"install Python {PYTHON[0]}.{PYTHON[1]} or newer, and make a new environment with it"
    yield Finding("versions", "python", fits, platform.python_version(), fix, needed=True)
    bounds = _bounds()
    for package in PACKAGES:
        yield _package(package, bounds.get(package.replace("_", "-"), ""))
    for package, fix in OPTIONAL.items():
        found = importlib.util.find_spec(package) is not None
        yield Finding("versions", package, found, _version(package) or "not installed", fix)


def _package(package: str, bound: str) -> Finding:
    version, wrong = _version(package), ""
    if not version:
        wrong = "not installed"
    elif bound and not _satisfies(version, bound):
        wrong = f"{version}, but {bound} is needed"
    else:
        try:  # what cannot be imported may raise anything: a library of another version, a missing system file
            importlib.import_module(MODULES.get(package, package.replace("-", "_")))
        except Exception as error:
            wrong = f"{version} cannot be imported: {_line(error)}"
    return Finding("versions", package, not wrong, wrong or version, f'pip install "{package}{bound}"', needed=True)


def engines() -> Iterator[Finding]:
    """Which engine `--engine auto` would choose, and why not the other."""
    from detectron2_sam.commands.train import choose_engine

    engine = choose_engine("auto")
    spec = importlib.util.find_spec("detectron2")
    reason = "Detectron2 is not installed" if spec is None else "Detectron2 is here but cannot be imported"
    detail = "detectron2" if engine == "detectron2" else f"fabric ({reason})"
    yield Finding("engine", "--engine auto", True, detail, needed=True)


def devices() -> Iterator[Finding]:
    """GPUs with what they compute in, the CPU, and the kernels that run."""
    import torch

    from sam_common.engine.launch import choose_precision
    from sam_common.masks import kernels as map_kernels

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for index in range(gpus):
        properties = torch.cuda.get_device_properties(index)
        dtype = str(choose_precision(torch.device("cuda", index), "auto")).removeprefix("torch.")
        memory = f"{properties.total_memory / 2**30:.0f} GiB"
        yield Finding("devices", f"cuda:{index}", True, f"{properties.name}, {memory}; trains in {dtype}")
    if not gpus:
        cause, fix = ("sees no GPU", "check nvidia-smi") if torch.version.cuda else ("is for CPUs", "see pytorch.org")
        yield Finding("devices", "cuda", False, f"torch {torch.__version__} {cause}", f"with an NVIDIA GPU: {fix}")
    cpu = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads; trains in float32, in bf16 if asked to"
    yield Finding("devices", "cpu", True, cpu)
    yield from (_kernel(torch.device(kind)) for kind in ("cpu", *(["cuda"] if gpus else [])))
    maps = map_kernels.kernel_in_use()
    fix = "for a faster one install a C++ compiler, such as g++ (optional)"
    yield Finding("kernels", "passes over maps, cpu", maps == "c++", maps, fix)


def _kernel(device: Any) -> Finding:
    """Which deformable attention a device runs; without a compiler or Triton there still is one."""
    from possam.deformable_attention.operator import kernel_in_use

    kernel = kernel_in_use(device)
    slow = kernel.startswith("pytorch")
    wanted = "a C++ compiler, such as g++" if device.type == "cpu" else "triton>=3.3"
    if device.type == "cuda" and not slow:
        kernel += "; not yet run on a GPU: to compare, set DETECTRON2_SAM_KERNELS=pytorch"
    fix = f"for a faster one install {wanted} (optional)"
    return Finding("kernels", f"deformable attention, {device.type}", not slow, kernel, fix)


def datasets(cfg: Any) -> Iterator[Finding]:
    """Every data set known by name and those of the configuration: its files, or the first that is missing."""
    from detectron2_sam.methods import register_datasets
    from sam_common.data import catalog

    register_datasets()
    wanted: set[str] = set()
    if cfg is not None:
        catalog.register_from_config(cfg.DATASETS.REGISTER)
        wanted = {*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST}
    yield Finding("data sets", "DETECTRON2_DATASETS", True, f"{catalog.datasets_root()}")
    for name in dict.fromkeys([*catalog.names(), *sorted(wanted)]):
        spec = catalog.get(name)
        files = spec.files
        missing = [f"{role} {path}" for role, path in files.items() if not os.path.exists(path)]
        first = next(iter(files.values()), "")
        detail = f"no {missing[0]}" if missing else first
        yield Finding("data sets", name, not missing, detail, where_to_get(spec.source), name in wanted)


def where_to_get(source: Any) -> str:
    """What to do where files of a data set are missing, in one line, by its `DatasetSpec.source`."""
    if source is None:
        return "correct its entry in DATASETS.REGISTER, or put the file there"
    command = f"detectron2-sam prepare {source.prepare}" if source.prepare else ""
    if not source.pages:
        return command
    then = (
        f"lay it out as {command} --help shows, then {command}" if command else "lay it out as datasets/README.md shows"
    )
    return f"get {' and '.join(source.pages)}; {then}"


def weights(cfg: Any) -> Iterator[Finding]:
    """The embedded weights, the official ones by name with the place where each is kept, those of the configuration."""
    from possam.clip_encoder import official_clips
    from sam_common.io.resources import resource
    from sam_common.io.tensor_files import format_of
    from sam_common.io.weights import OFFICIAL, cache_folder

    wanted = set() if cfg is None else {cfg.MODEL.SAM.WEIGHTS, cfg.MODEL.WEIGHTS}
    if cfg is not None and cfg.MODEL.META_ARCHITECTURE == "PosSAM":  # the others have no CLIP
        wanted.add(cfg.MODEL.CLIP.WEIGHTS)
    for name in ("tiny_sam", "tiny_clip"):
        path = resource(f"weights/{name}.safetensors")
        yield Finding("weights", f"embedded {name}", True, str(path), needed=True)
    for name, official in OFFICIAL.items():
        path = cache_folder() / official.file_name
        yield _download(name, path, official, name in wanted)
    for tag, (url, found) in official_clips().items():
        fix = f"downloaded at the first use; without a network fetch {url} and give its path as MODEL.CLIP.WEIGHTS"
        yield _file("weights", tag, found, fix, tag in wanted, format_of, downloads=True)
    known = {*OFFICIAL, *official_clips(), "embedded", "random", ""}
    for name in sorted(wanted - known):
        fix = "correct MODEL.SAM.WEIGHTS, MODEL.CLIP.WEIGHTS or MODEL.WEIGHTS"
        yield _file("weights", name, Path(name), fix, True, format_of)


def boxes(cfg: Any) -> Iterator[Finding]:
    """What the configuration's `INPUT.BOXES.SOURCE` needs: a file, a package, the weights of torchvision."""
    if cfg is None:
        return
    from sam_common.boxes.box_files import read_coco_results
    from sam_common.boxes.detectors import TORCHVISION
    from sam_common.io.tensor_files import format_of
    from sam_common.io.weights import cache_folder

    source = cfg.INPUT.BOXES.SOURCE
    family, _, rest = source.partition(":")
    if source in TORCHVISION:
        from sam_common.boxes.torchvision_detector import official_file

        official = official_file(source)
        yield _download(source, cache_folder() / official.file_name, official, True, section="boxes")
    elif source.lower().endswith(".json"):
        yield _file("boxes", source, Path(source), "correct INPUT.BOXES.SOURCE", True, read_coco_results)
    if family in ("transformers", "ultralytics"):
        found = _version(family)
        yield Finding("boxes", family, bool(found), found or "not installed", OPTIONAL[family], True)
    if family == "ultralytics":
        fix = "get it from https://github.com/ultralytics/assets/releases"
        yield _file("boxes", source, Path(rest), fix, True, format_of)


def _download(name: str, path: Path, official: OfficialFile, needed: bool, section: str = "weights") -> Finding:
    from sam_common.io.weights import verified_file

    fix = f"curl -fL --create-dirs -o {path} {official.url}"
    return _file(section, name, path, fix, needed, lambda _: verified_file(official, name), downloads=True)


def _file(
    section: str,
    name: str,
    path: Path | None,
    fix: str,
    needed: bool,
    check: Callable[[Path], object],
    downloads: bool = False,
) -> Finding:
    """A file that is here, and that `check` does not refuse."""
    if path is None or not os.path.exists(path):
        return Finding(section, name, False, "not here", fix, needed, downloads)
    try:
        check(path)
    except UserError as error:
        return Finding(section, name, False, str(error), fix, needed)
    return Finding(section, name, True, str(path), fix, needed, downloads)


def samples() -> Iterator[Finding]:
    """The folder of real pictures that some tests use."""
    folder = os.environ.get("DETECTRON2_SAM_SAMPLES", "")
    found = bool(folder) and Path(folder).is_dir()
    detail = folder if found else f"there is no folder {folder}" if folder else "unset: tests on real pictures skip"
    fix = "set it to a folder with coco_panoptic/panoptic.json, images/ and panoptic/ (CONTRIBUTING.md)"
    yield Finding("samples", "DETECTRON2_SAM_SAMPLES", found, detail, fix)


def configured_device(cfg: Any) -> Iterator[Finding]:
    """Whether the configuration's device is here."""
    if cfg is not None:
        from sam_common.config import resolve_device

        yield Finding("configuration", "MODEL.DEVICE", True, str(resolve_device(cfg.MODEL.DEVICE)), needed=True)


def examine(config_file: str = "", opts: Sequence[str] = ()) -> list[Finding]:
    """All findings; a part that fails, for whatever reason, is a finding too."""
    found: list[Finding] = []
    cfg = None
    if config_file:
        try:
            from detectron2_sam.methods import full_cfg

            cfg = full_cfg(config_file, opts)
        except Exception as error:  # a doctor reports what breaks, also without the packages
            found.append(Finding("configuration", config_file, False, _line(error), "correct it", needed=True))
    parts: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("versions", versions),
        ("engine", engines),
        ("devices", devices),
        ("data sets", lambda: datasets(cfg)),
        ("weights", lambda: weights(cfg)),
        ("boxes", lambda: boxes(cfg)),
        ("samples", samples),
        ("configuration", lambda: configured_device(cfg)),
    )
    for section, look in parts:
        try:
            found += look()
        except Exception as error:  # likewise
            fix = "correct that, or first what stands above"
            found.append(Finding(section, section, False, f"cannot be examined: {_line(error)}", fix, needed=True))
    return found


def _bounds() -> dict[str, str]:
    """Package -> version bound, as the installed project declares them; none where it is not installed."""
    try:
        declared = importlib.metadata.requires(PROJECT) or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    matches = (re.match(r"([\w.-]+)\s*([^;]*)", line) for line in declared if "extra ==" not in line)
    return {match[1].replace("_", "-"): match[2].strip() for match in matches if match}


def _satisfies(version: str, bound: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(bound).contains(version, prereleases=True)


def _version(package: str) -> str:
    """The installed version; "" where there is none. `opencv-python` serves for its headless twin."""
    for name in (package, package.removesuffix("-headless")):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = command_line("doctor", __doc__)
    add_config(parser, default="", help="also check what this configuration needs, by name or path")
    parser.add_argument("--json", action="store_true", help="print the findings as a JSON list")
    add_overrides(parser)
    return parser.parse_intermixed_args(argv)


def main(argv: Sequence[str]) -> int:
    """Prints the report; 0 if nothing that is needed is missing, else 1."""
    args = parse(argv)
    found = examine(args.config_file, args.opts)
    missing = [finding for finding in found if finding.needed and not finding.found]
    if args.json:
        print(json.dumps([asdict(finding) for finding in found], indent=1))
        return 1 if missing else 0
    for section in dict.fromkeys(finding.section for finding in found):
        print(section)
        print(*(finding for finding in found if finding.section == section), sep="\n")
    print(f"\n{len(missing)} needed things are missing, marked !!" if missing else "\nWhat is needed is here.")
    return 1 if missing else 0
