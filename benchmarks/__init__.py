"""Time and memory against the forms that people paste: `python -m benchmarks`."""
