"""Both arms of the gate, installed: the same packages, without and with the series."""
