"""A soak: random use during random events of the host, and four views compared in the end."""
