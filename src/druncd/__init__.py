"""druncd, a process manager on systemd."""
