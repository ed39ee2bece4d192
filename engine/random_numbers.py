"""Random numbers by counter: a pure function of (seed, position, index), so neighbours in a batch never matter."""

_MASK = (1 << 64) - 1


def uniform(seed: int, position: int, index: int) -> float:
    """A number in [0, 1) with 53 random bits.

    Three rounds of the finaliser of SplitMix64 (Steele, Lea and Flood, 2014), one for each part of the key.
    """
    state = _mix(seed & _MASK)
    state = _mix(state ^ position)
    return (_mix(state ^ index) >> 11) / (1 << 53)


def _mix(z: int) -> int:
    z = (z + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)
