"""Installs the two arms: the same packages, without and with the series."""
