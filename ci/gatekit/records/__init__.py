"""Shared records: checks, runs, what a run was made from, and stages as data."""
