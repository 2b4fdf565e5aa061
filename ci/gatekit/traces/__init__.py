"""Read profiler traces, attribute kernels to modules, and decide what they show."""
