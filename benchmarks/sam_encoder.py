"""SAM's image encoder against segment-anything's own: JSON lines with time and peak memory, equality first.

    python -m benchmarks.sam_encoder                                    # ViT-B at 1024², float32, one thread
    python -m benchmarks.sam_encoder --size H --threads 2
    python -m benchmarks.sam_encoder --device cuda --dtype bf16         # was never run on a GPU

Memory first: each encoder in a process of its own encodes the same image once, and the peak counts from when its
weights are in place: on the CPU what the process takes (resident pages, Linux), on a GPU what tensors take. The
embeddings of both must agree; ours may run in bfloat16 (`--dtype bf16`), the peer is float32 in any case. Then time, in
turn in one process.
"""

from __future__ import annotations

import sys

import torch
from segment_anything import sam_model_registry
from torch import Tensor, nn

from benchmarks.memory import MIB, forget_peak, memory
from benchmarks.side_by_side import Parser, apart, in_turn, tell
from detectron2_sam.commands.cli import run_tool
from sam_common.config import resolve_device
from sam_common.sam.build import build_image_encoder
from sam_common.sam.load import draw_positions

PEER, OURS = "segment-anything", "ours"
REGISTERED = {"B": "vit_b", "L": "vit_l", "H": "vit_h"}
PIXELS = 1024  # the peer takes no other
TARGET = {"cpu": 1.4, "cuda": 6.0}  # of time
TARGET_MEMORY = 5.0
TOLERANCE = {"float32": 1e-4, "bf16": 5e-2}  # beside the largest value


def build(name: str, size: str, device: str) -> nn.Module:
    """One of the two, with the same random weights, positions drawn too."""
    torch.manual_seed(0)
    ours = build_image_encoder(size)
    draw_positions(ours)
    with torch.device("meta"):
        peer = sam_model_registry[REGISTERED[size]]().image_encoder
    peer.load_state_dict(ours.state_dict(), assign=True)
    encoder = ours if name == OURS else peer
    return encoder.requires_grad_(False).eval().to(device)


def encode(encoder: nn.Module, image: Tensor, dtype: str) -> Tensor:
    """One pass; over when it returns, on a GPU too."""
    with torch.no_grad(), torch.autocast(image.device.type, torch.bfloat16, enabled=dtype == "bf16"):
        embeddings = encoder(image)
    if image.device.type == "cuda":
        torch.cuda.synchronize()
    return embeddings


def picture(device: str) -> Tensor:
    """An image's worth of noise."""
    return torch.randn(1, 3, PIXELS, PIXELS, generator=torch.Generator().manual_seed(1)).to(device)


def measure_memory(name: str, size: str, device: str, dtype: str, threads: int) -> tuple[float, Tensor]:
    """MiB that one pass takes beside weights and image, and its embeddings; to be run in a process of its own."""
    torch.set_num_threads(threads)
    encoder, image, where = build(name, size, device), picture(device), torch.device(device)
    forget_peak(where)
    before = memory(where, "VmRSS")
    embeddings = encode(encoder, image, dtype)
    return (memory(where, "VmHWM") - before) / MIB, embeddings.float().cpu()


def main() -> None:
    """Prints two lines: time and memory."""
    parser = Parser(__doc__, threads=1, repeats=2)
    parser.add_argument("--size", choices=REGISTERED, default="B")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=TOLERANCE, default="float32", help="of ours")
    args = parser.parse()
    resolve_device(args.device)
    (theirs, expected), (mine, embeddings) = (
        apart(measure_memory, name, args.size, args.device, dtype, args.threads)
        for name, dtype in ((PEER, "float32"), (OURS, args.dtype))
    )
    tolerance = TOLERANCE[args.dtype] * expected.abs().max().item()
    torch.testing.assert_close(embeddings, expected, rtol=0, atol=tolerance)

    peer, ours = (build(name, args.size, args.device) for name in (PEER, OURS))
    image = picture(args.device)
    times = in_turn(
        lambda: encode(peer, image, "float32"),
        lambda: encode(ours, image, args.dtype),
        repeats=args.repeats,
        threads=args.threads if args.device == "cpu" else 2,  # not 1: waiting for a GPU takes no CPU time
    )
    what = {"device": args.device, "dtype": args.dtype}
    case = f"SAM encoder, ViT-{args.size}, {PIXELS}²"
    tell(f"{case}, time", PEER, {**what, **times}, target=TARGET[args.device])
    memory_used = {"peer_mib": round(theirs), "ours_mib": round(mine), "ratio": round(theirs / mine, 1)}
    tell(f"{case}, peak memory", PEER, {**what, **memory_used}, target=TARGET_MEMORY)


if __name__ == "__main__":
    sys.exit(run_tool(main))
