"""The gate's stages as jobs of a cluster."""
