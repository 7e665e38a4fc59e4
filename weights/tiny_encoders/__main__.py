"""Trains the tiny SAM and the tiny CLIP that ship in `weights/`, on generated scenes, on a CPU.

    python -m weights.tiny_encoders                # both, one after the other: about 70 minutes of one core
    python -m weights.tiny_encoders --only sam     # one of them, e.g. each on a core of its own

Both write what they were taught with into their file. Those that ship were taught in stages, each going on from the
file of the one before: weights/README.md has the commands.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import torch

from weights.tiny_encoders.clip import train_tiny_clip
from weights.tiny_encoders.sam import train_tiny_sam


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("sam", "clip"), help="train one of the two")
    parser.add_argument("--output", type=Path, default=Path("weights"), help="folder of the files (weights)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, scenes and prompts (0)")
    parser.add_argument("--sam-iterations", type=int, default=3400, help="(3400)")
    parser.add_argument("--sam-batch-size", type=int, default=8, help="scenes of an iteration (8)")
    parser.add_argument("--sam-learning-rate", type=float, default=1e-3, help="the highest, after warm-up (0.001)")
    parser.add_argument("--sam-start", type=Path, help="a tiny_sam.safetensors to go on from")
    parser.add_argument("--clip-minutes", type=float, default=30, help="of training (30)")
    parser.add_argument("--clip-start", type=Path, help="a tiny_clip.safetensors to go on from, with another seed")
    parser.add_argument("--threads", type=int, default=1, help="(1)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    if args.only != "clip":
        path = args.output / "tiny_sam.safetensors"
        options = {"batch_size": args.sam_batch_size, "learning_rate": args.sam_learning_rate, "start": args.sam_start}
        scores = train_tiny_sam(path, seed=args.seed, iterations=args.sam_iterations, **options)
        print(f"{path}: box mIoU on 200 test scenes: {scores}")
    if args.only != "sam":
        path = args.output / "tiny_clip.safetensors"
        accuracies = train_tiny_clip(path, seed=args.seed, minutes=args.clip_minutes, start=args.clip_start)
        print(f"{path}: accuracy in ground-truth masks: {accuracies}")


if __name__ == "__main__":
    main()
