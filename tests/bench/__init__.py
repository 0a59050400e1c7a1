"""Measures druncd against what systemd, gRPC and journalctl do by themselves."""
