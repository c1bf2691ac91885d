"""What devicevm costs, measured against the same work done with nothing in between: `make bench`, docs/benchmarks.md."""
