"""What the benchmarks of training share: data sets, and measuring a function in a process of its own."""
