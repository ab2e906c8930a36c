//! Everything a developer runs, as a library: the lab that demo, tests and benchmarks share.
