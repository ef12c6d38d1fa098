"""Seeds made of several numbers."""

import numpy as np


def seed_of(*numbers: int) -> int:
    """A seed under 2⁶³ that depends on all of these numbers (at least 0) and their order, the same on every machine.

    By numpy's SeedSequence (O'Neill, 2015); Python's own hash of a tuple changes with its version.
    """
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) % 2**63
