"""The gate's stages: what they need, what they run, and what is kept of it."""
