"""Read-only trees of upstream files, and the file lock for writing to one."""
