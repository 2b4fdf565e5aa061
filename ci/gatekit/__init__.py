"""The gate: what it runs, how it judges, what it reports."""
