"""The serving benchmark: commands, runs, results, and the comparison of two arms."""
