"""python -m benchmarks.recover: what DIVER costs over plain sampling of as many steps, in turns; a ratio of medians."""

import argparse
from functools import partial

import torch

import hieramp
from benchmarks.measuring import in_turns, paired_ratio, timed
from hieramp.distillation.diver import Diver, recovered


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="cifar10-dit")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    model = hieramp.load(args.model, kind="dit")
    labels = [k % len(model.class_names) for k in range(args.images)]
    seeds, diver = list(range(args.images)), Diver(steps=args.steps)
    given = torch.rand(args.images, 3, model.image_size, model.image_size)

    def plain() -> None:
        model.generate(labels, seeds, guidance=diver.guidance, steps=args.steps).images.sum().item()

    def anew() -> None:
        recovered(model, given, labels, seeds, diver).sum().item()

    seconds = in_turns({"plain": partial(timed, plain), "DIVER": partial(timed, anew)}, args.rounds)
    ratio = paired_ratio(seconds["DIVER"], seconds["plain"])
    print(f"{args.images} images of {args.model}, {args.steps} steps, {torch.get_num_threads()} threads")
    print(f"DIVER over plain sampling: {ratio}")


if __name__ == "__main__":
    main()
