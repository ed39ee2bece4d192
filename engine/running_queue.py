"""Who runs: the admitted sequences, oldest first by their first admission.

Owns their order, and the ages that it follows. Knows neither seats nor memory nor work: the
scheduler decides who comes and who goes. Engine thread only.
"""

from bisect import insort
from collections import abc

from engine.sequence import Sequence, SequenceStatus


class RunningQueue:
    """One that comes back takes the place that its age gives it."""

    def __init__(self) -> None:
        self._oldest_first: list[Sequence] = []
        self._num_ages = 0

    def __len__(self) -> int:
        return len(self._oldest_first)

    def __iter__(self) -> abc.Iterator[Sequence]:
        return iter(self._oldest_first)

    @property
    def youngest(self) -> Sequence:
        return self._oldest_first[-1]

    @property
    def all_give_way(self) -> bool:
        """Whether there are some, and none of them holds up anybody else."""
        return bool(self._oldest_first) and self._oldest_first[0].caller.gives_way

    def admit(self, seq: Sequence) -> None:
        """A new one is the youngest from now on."""
        if seq.status is SequenceStatus.WAITING:
            seq.age = self._num_ages
            self._num_ages += 1
        seq.status = SequenceStatus.RUNNING
        insort(self._oldest_first, seq, key=lambda peer: peer.age)

    def remove(self, seq: Sequence) -> None:
        """Its new status is the caller's to say."""
        self._oldest_first.remove(seq)

    def check_integrity(self) -> None:
        """Assert that they are in order, that all of them run and all give way or none does."""
        ages = [seq.age for seq in self._oldest_first]
        assert ages == sorted(set(ages)), f"the running sequences are out of order: {ages}"
        assert all(seq.status is SequenceStatus.RUNNING for seq in self._oldest_first)
        assert len({seq.caller.gives_way for seq in self._oldest_first}) <= 1, "somebody has not given way"
