"""Runs commands and servers; both end, with all their children, when the gate ends."""
