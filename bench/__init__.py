"""Benches: ways side by side in one run, medians of at least five rounds, tables written into `docs/benchmarks.md`."""
