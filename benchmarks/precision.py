"""python -m benchmarks.precision: what half precision changes in the tokens, and whether pictures suffer.

The same images are drawn in float32 and in half precision. Per scale: the share of tokens that differ, and the same
among the images that had not parted before that scale (what parts early goes on apart). The model's own classifier
names both, and its features give both an FID against real images with --data.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

import hieramp
from hieramp import SCHEDULES
from hieramp.analysis.fidelity import frechet_distance
from hieramp.analysis.judged import judge
from hieramp.analysis.measure import as_bytes
from hieramp.checkpoints import model_folder
from hieramp.classifier import load_classifier
from hieramp.commands.arguments import DTYPES
from hieramp.data import decode, open_source


def drawn(name: str, device: str, dtype: torch.dtype, count: int, batch: int) -> tuple[list[Tensor], Tensor]:
    """Tokens per scale (N, n²) and uint8 images of `count` images, classes in turn, amplified."""
    model = hieramp.load(name, device, dtype)
    labels = [i % len(model.class_names) for i in range(count)]
    parts = []
    for start in range(0, count, batch):
        some = range(start, min(start + batch, count))
        parts.append(model.generate(labels[some.start : some.stop], some, SCHEDULES["all"]))
    tokens = [torch.cat(scale).cpu() for scale in zip(*(part.tokens for part in parts), strict=True)]
    return tokens, torch.cat([as_bytes(part.images) for part in parts])


def differences(tokens: Sequence[Tensor], others: Sequence[Tensor]) -> list[tuple[float, float, float]]:
    """Per scale: share that differs, share among images that had not parted before, share of images not parted."""
    together_B = torch.ones(len(tokens[0]), dtype=torch.bool)
    rows = []
    for mine_BL, theirs_BL in zip(tokens, others, strict=True):
        differ_BL = (mine_BL != theirs_BL).double()
        among = differ_BL[together_B].mean().item() if together_B.any() else float("nan")
        together_B = together_B & ~differ_BL.any(1)
        rows.append((differ_BL.mean().item(), among, together_B.double().mean().item()))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cifar10")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=["bfloat16", "float16"], default="bfloat16")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--data", type=Path, help="folder with test/, for the FID")
    args = parser.parse_args()
    tokens, images = drawn(args.model, args.device, torch.float32, args.images, args.batch)
    others, other_images = drawn(args.model, args.device, DTYPES[args.dtype], args.images, args.batch)
    print(f"{args.model} on {args.device}, torch {torch.__version__}, {args.images} images, float32 and {args.dtype}\n")
    print("| scale | tokens that differ | among images alike before | images alike so far |")
    print("| --- | --- | --- | --- |")
    for scale, (share, among, together) in enumerate(differences(tokens, others)):
        print(f"| {scale} | {share:.2%} | {among:.2%} | {together:.1%} |")
    classifier = load_classifier(model_folder(args.model))
    labels = torch.arange(args.images) % len(hieramp.load(args.model, "cpu").class_names)
    real = decode(open_source(args.data / "test"), images.shape[-1]) if args.data else None
    known = None if real is None else judge(classifier, real.images, real.labels).features_NF
    print("\n| precision | accuracy | FID |")
    print("| --- | --- | --- |")
    for dtype, some in (("float32", images), (args.dtype, other_images)):
        found = judge(classifier, some, labels)
        fid = "" if known is None else f"{frechet_distance(found.features_NF, known):.2f}"
        print(f"| {dtype} | {found.accuracy:.1%} | {fid} |")


if __name__ == "__main__":
    main()
