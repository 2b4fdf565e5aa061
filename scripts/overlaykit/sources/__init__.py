"""Packages and releases of upstream: fetched, checked by digest, laid out."""
