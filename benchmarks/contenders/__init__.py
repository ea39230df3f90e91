"""The other libraries, one module each: what they are asked to do is in `benchmarks.workload`."""
