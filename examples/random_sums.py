"""A question source of one's own: sums of random positive numbers, as many as are asked for.

questions:
  - kind: python
    source: examples/random_sums.py:sums
    arguments: {below: 100, seed: 1}
    limit: 500
"""

import itertools
import random
from collections.abc import Iterator


def sums(below: int, seed: int = 0, terms: int = 2) -> Iterator[dict[str, str]]:
    """Sums of `terms` numbers whose result is smaller than `below`, without end: `limit` says how many are taken."""
    rng = random.Random(seed)
    for _ in itertools.count():
        numbers = [rng.randrange(1, below) for _ in range(terms)]
        if sum(numbers) < below:
            yield {"question": f"What is {' + '.join(map(str, numbers))}?", "answer": str(sum(numbers))}
