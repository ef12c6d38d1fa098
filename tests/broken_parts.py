"""Parts for the tests of benchmarks/card that do not end well; each is run by name in a process of its own."""

import os
import time

from benchmarks.card.part import Part


def run(part: Part) -> None:
    part.emit("before", value=1.0)
    with part.attempt("harmless"):
        pass
    act = {"raises": raises, "attempts": attempts, "checks": checks, "dies": dies, "hangs": hangs, "works": int}
    act[part.name](*([part] if part.name in ("attempts", "checks") else []))


def raises() -> None:
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def attempts(part: Part) -> None:
    with part.attempt("an operation"):
        raises()
    part.emit("after", value=2.0)


def checks(part: Part) -> None:
    part.check("tokens", False)


def dies() -> None:
    os._exit(3)


def hangs() -> None:
    while True:
        time.sleep(1)
