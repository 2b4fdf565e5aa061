"""Read-only trees of upstream files, and the file locks that guard a writable one."""
