"""Trials of a running system: the tests run them small, the benchmarks of the same names at full size."""
