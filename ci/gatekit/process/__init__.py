"""Commands and servers that end with the gate, and with all that they started."""
