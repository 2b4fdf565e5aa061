"""What judges record: checks, runs, what was served, and what a stage is."""
