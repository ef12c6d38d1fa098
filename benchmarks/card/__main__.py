"""python -m benchmarks.card --out DIR: what to measure in the first minutes on a CUDA card (docs/card.md).

Every part runs in a process of its own with a limit of its own: one that fails, hangs or leaves the card's context
broken costs itself only. Results are appended to DIR/results.jsonl line by line. The exit code is 1 where a part
failed, was stopped at its limit or had no time left.

  info     the card, its rates, and which attention PyTorch chooses
  equal    card against CPU, recorded scales against plain ones, an image alone against one among others
  micro    bicubic, attention in several ways, sampling, the decoder in several precisions
  draw     var-d16: base, + class tokens, + amplification; cold, plain, recorded, replayed
  train    steps of every objective: plain, with cuDNN's attention, with compiled blocks
  profile  kernels of a drawing and of training steps
"""

import argparse
import sys
from pathlib import Path

from benchmarks.card.part import read_results
from benchmarks.card.runner import LIMITS, Run


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the results; those there are kept")
    parser.add_argument("--parts", default=",".join(LIMITS), help="in this order, separated by commas")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try the code")
    parser.add_argument("--tiny", action="store_true", help="small sizes, to try the code")
    parser.add_argument("--cudnn", action="store_true", help="leave cuDNN's attention on in every part")
    parser.add_argument("--seconds", type=float, default=600.0, help="of all parts together; later ones are cut short")
    args = parser.parse_args(arguments)
    parts = args.parts.split(",")
    if unknown := [part for part in parts if part not in LIMITS]:
        parser.error(f"--parts: there is no part {unknown[0]!r}; there are {', '.join(LIMITS)}")
    args.out.mkdir(parents=True, exist_ok=True)
    run = Run(args.out, args.device, args.tiny, args.cudnn)
    failed = run.all(parts, args.seconds)
    results = read_results(args.out)
    bad = [f"{r['part']}: {r['name']}" for r in results if "failed" in r or r.get("ok") is False]
    print(f"{len(results)} results; failed: {', '.join(bad) or 'none'}; parts not done: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
