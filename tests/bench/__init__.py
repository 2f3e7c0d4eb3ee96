"""The benchmark: `python -m tests.bench` measures in namespaces of its own and writes
docs/benchmarks.md.
"""
