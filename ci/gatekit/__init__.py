"""What the gate's judges share: checks, and what was run, as they record it."""
