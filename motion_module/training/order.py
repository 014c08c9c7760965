"""In which order examples are learned from: known for each step, so that a training can go on anywhere, on any devices."""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache

import numpy as np

from .cache import Example


class Order:
    """Batches of examples of one size. In each epoch every example comes once; a batch that is not full takes others again."""

    def __init__(self, examples: list[Example], batch: int, seed: int) -> None:
        """`batch`: examples at once on all devices together."""
        self._buckets: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index, example in enumerate(examples):
            self._buckets[example.size].append(index)
        self._batch, self._seed = batch, seed
        self.batches_per_epoch = sum(-(-len(bucket) // batch) for bucket in self._buckets.values())
        self._epoch = lru_cache(maxsize=2)(self._drawn)

    def at(self, index: int) -> list[int]:
        """The examples of batch `index`, counted from the start of the training."""
        epoch, within = divmod(index, self.batches_per_epoch)
        return self._epoch(epoch)[within]

    def _drawn(self, epoch: int) -> list[list[int]]:
        draw = np.random.default_rng([self._seed, epoch])
        batches = []
        for _, bucket in sorted(self._buckets.items()):
            shuffled = draw.permutation(bucket)
            starts = range(0, len(bucket), self._batch)
            batches += [[int(shuffled[(start + i) % len(bucket)]) for i in range(self._batch)] for start in starts]
        return [batches[place] for place in draw.permutation(len(batches))]
