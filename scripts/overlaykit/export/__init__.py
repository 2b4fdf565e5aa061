"""Exports the series for other tools, and writes the text of a pull request."""
