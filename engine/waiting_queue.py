"""Whose turn it is to be admitted: the waiting sequences, a line for each caller.

Owns the order of admission. Knows neither seats nor memory: the scheduler decides how many go in,
and when. Engine thread only. No operation looks at more sequences than it returns.
"""

from bisect import insort
from collections import OrderedDict, abc, deque
from itertools import chain, islice

from engine.sequence import Sequence


class WaitingQueue:
    """Preempted sequences first, oldest first; then one of each caller in turn, in its order of
    arrival.
    """

    def __init__(self) -> None:
        self._preempted: list[Sequence] = []
        # By the caller's name, the caller whose turn it is first. A caller without a sequence has no line.
        self._lines: OrderedDict[str, OrderedDict[Sequence, None]] = OrderedDict()
        self._num_in_lines = 0

    def __len__(self) -> int:
        return len(self._preempted) + self._num_in_lines

    def __iter__(self) -> abc.Iterator[Sequence]:
        """All of them, in no order that matters."""
        return chain(self._preempted, chain.from_iterable(self._lines.values()))

    def add(self, seq: Sequence) -> None:
        """At the end of its caller's line; a caller that had none waits for one turn of each other
        caller at most.
        """
        self._lines.setdefault(seq.caller.name, OrderedDict())[seq] = None
        self._num_in_lines += 1

    def put_back(self, seq: Sequence) -> None:
        """A preempted sequence, before all that were never admitted."""
        insort(self._preempted, seq, key=lambda peer: peer.age)

    def next_in_turn(self, num_sequences: int) -> list[Sequence]:
        """At most so many, in the order in which they are to be admitted. Nothing is removed."""
        found = self._preempted[:num_sequences]
        lines = deque(iter(line) for line in islice(self._lines.values(), num_sequences))
        while lines and len(found) < num_sequences:
            line = lines.popleft()
            seq = next(line, None)
            if seq is not None:
                found.append(seq)
                lines.append(line)
        return found

    def admit(self, seq: Sequence) -> None:
        """Remove it; the others of its caller wait until every other caller had a turn.

        A preempted one that comes back takes no turn: it had its own when it was admitted first.
        """
        takes_a_turn = seq not in self._preempted
        self.discard(seq)
        if takes_a_turn and seq.caller.name in self._lines:
            self._lines.move_to_end(seq.caller.name)

    def discard(self, seq: Sequence) -> None:
        """Remove it without a turn being taken."""
        line = self._lines.get(seq.caller.name)
        if line is None or seq not in line:
            self._preempted.remove(seq)
            return
        del line[seq]
        self._num_in_lines -= 1
        if not line:
            del self._lines[seq.caller.name]

    def check_integrity(self) -> None:
        """Assert that the lines are in order and counted right."""
        assert self._num_in_lines == sum(map(len, self._lines.values()))
        assert all(self._lines.values()), "a caller has an empty line"
        ages = [seq.age for seq in self._preempted]
        assert ages == sorted(set(ages)), f"the preempted sequences are out of order: {ages}"
        for name, line in self._lines.items():
            ids = [seq.seq_id for seq in line]
            assert ids == sorted(set(ids)), f"a line is out of order: {ids}"
            assert all(seq.caller.name == name for seq in line)


class WaitingRanks:
    """Two queues: of those that give way, and of all others."""

    def __init__(self) -> None:
        self.others = WaitingQueue()
        self.giving_way = WaitingQueue()

    def __len__(self) -> int:
        return len(self.others) + len(self.giving_way)

    def __iter__(self) -> abc.Iterator[Sequence]:
        return chain(self.others, self.giving_way)

    def of(self, seq: Sequence) -> WaitingQueue:
        """Where it waits, or would."""
        return self.giving_way if seq.caller.gives_way else self.others

    def check_integrity(self) -> None:
        """Assert that both are in order, and everyone in the right one."""
        for queue in (self.others, self.giving_way):
            queue.check_integrity()
            assert all(self.of(seq) is queue for seq in queue)
