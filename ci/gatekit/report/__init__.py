"""What a run of the gate came to, for programs, pull requests and people."""
