"""What the carried series promises: the layout of FP8 activation scales.

It knows nothing about patches. From the engine it uses only trees and findings.
"""
