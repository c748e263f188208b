"""What the benchmarks measure with: steps out of a metrics file, medians and ratios, the floor below every recovery."""
