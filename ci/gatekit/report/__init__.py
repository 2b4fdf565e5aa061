"""Reports of a run of the gate: for programs, for pull requests and for people."""
