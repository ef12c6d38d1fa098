"""Runs a distillation many times over and kills it: python tests/interrupted.py MODEL OUT COUNT SEED [LIMIT].

The children are forked off a process that has everything loaded, so that each lives for a moment only. With LIMIT
no file may grow beyond that many bytes, as on a full disk. Prints a JSON line: how many were killed in mid-work,
and what an error said.
"""

import json
import os
import random
import resource
import signal
import sys
import time

import torch

import hieramp

torch.set_num_threads(1)


def child(model: hieramp.Model, out: str, limit: int | None, pipe: int) -> None:
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        for _ in hieramp.distill(model, 30, out, batch_size=8, soft_labels=True):
            pass
    except OSError as error:
        os.write(pipe, str(error).encode())
    os._exit(0)


def main() -> None:
    folder, out, count, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    limit = int(sys.argv[5]) if len(sys.argv) > 5 else None
    model, rng = hieramp.load(folder, "cpu"), random.Random(seed)
    killed, said = 0, ""
    for number in range(count):
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            child(model, out, limit, writing)
        os.close(writing)
        if not limit:
            # the first ones soon, so that some are at work still; then some may come to the end
            time.sleep(rng.uniform(0.0, 0.1 if number < count // 2 else 0.5))
            os.kill(pid, signal.SIGKILL)
        said += os.read(reading, 10_000).decode()
        os.close(reading)
        killed += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    print(json.dumps({"killed": killed, "said": said}))


if __name__ == "__main__":
    main()
