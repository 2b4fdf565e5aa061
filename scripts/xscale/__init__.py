"""What the carried series promises: the layout of FP8 activation scales.

Knows nothing of patches. Of the engine it uses only the reading of trees and the
shape of a finding.
"""
