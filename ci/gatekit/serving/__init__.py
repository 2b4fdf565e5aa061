"""The serving benchmark: commands, runs, what they said, and what may be concluded."""
