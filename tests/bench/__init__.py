"""The benchmark: `python -m tests.bench` measures every promise of speed beside its peers."""
