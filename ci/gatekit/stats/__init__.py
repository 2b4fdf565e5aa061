"""What paired measurements say: tests, intervals, decisions. Knows of no benchmark."""
