"""Fetches upstream packages and releases, checks their digests and lays them out."""
