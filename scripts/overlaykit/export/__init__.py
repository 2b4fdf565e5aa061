"""The series for other tools, and the text of a pull request."""
