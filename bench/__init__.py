"""What devicevm costs, against the same work with nothing in between: `make bench`, docs/benchmarks.md."""
