"""Tests for pytest. ``unittest`` finds ``tests/test_architecture.py`` alone, which says so."""

import unittest


def load_tests(loader: unittest.TestLoader, tests: unittest.TestSuite, pattern: str | None) -> unittest.TestSuite:
    """Nothing: seen from ``tests``, this folder hides the package of its name."""
    return unittest.TestSuite()
