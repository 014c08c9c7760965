"""The order of the training data. It is known for each step, so that a training can be resumed at any step on any devices."""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache

import numpy as np

from .latent_cache import Example


class Order:
    """Batches of clips of the same size. In each epoch every clip is used once; incomplete batches repeat clips."""

    def __init__(self, examples: list[Example], batch: int, seed: int) -> None:
        """`batch`: clips per pass on all devices together."""
        self._buckets: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index, example in enumerate(examples):
            self._buckets[example.size].append(index)
        self._batch, self._seed = batch, seed
        self.batches_per_epoch = sum(-(-len(bucket) // batch) for bucket in self._buckets.values())
        self._epoch = lru_cache(maxsize=2)(self._shuffled)

    def at(self, index: int) -> list[int]:
        """Returns the indices of the clips in batch `index`, counted from the start of the training."""
        epoch, within = divmod(index, self.batches_per_epoch)
        return self._epoch(epoch)[within]

    def _shuffled(self, epoch: int) -> list[list[int]]:
        draw = np.random.default_rng([self._seed, epoch])
        batches = []
        for _, bucket in sorted(self._buckets.items()):
            shuffled = draw.permutation(bucket)
            starts = range(0, len(bucket), self._batch)
            batches += [[int(shuffled[(start + i) % len(bucket)]) for i in range(self._batch)] for start in starts]
        return [batches[number] for number in draw.permutation(len(batches))]
