"""Seeds made of several numbers."""

from itertools import product

from hieramp.seeds import seed_of


def test_every_number_and_their_order_matter() -> None:
    numbers = list(product(range(12), repeat=3))
    seeds = {seed_of(*some) for some in numbers}
    assert len(seeds) == len(numbers) and all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of(1, 2) != seed_of(2, 1) and seed_of(3) == seed_of(3)
