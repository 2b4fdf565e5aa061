"""Every night: the series made again for upstream's main, proven, and reported.

``night`` does the work in a copy of the overlay, verb by verb; ``texts`` says what it
found; ``forge`` opens or updates the one pull request or the one issue.
"""
