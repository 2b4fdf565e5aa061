"""Edits of an applied tree, put back into the patches that own them."""
