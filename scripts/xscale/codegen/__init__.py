"""What the transposed scale costs in generated code.

``compilation`` compiles the producing kernels for gfx950 on a CPU; ``page`` writes the
figures to the evidence page.
"""
