"""Benchmarks on real data, run from a checkout; see ``python -m benchmarks --help``."""

# What an error about a missing module tells to do.
INSTALL = 'pip install -e ".[bench]" in the checkout'
