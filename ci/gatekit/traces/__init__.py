"""Reading profiler traces, giving kernels to modules, and judging what they show."""
