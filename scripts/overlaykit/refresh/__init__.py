"""Puts the edits of an applied tree back into the patches that own them."""
