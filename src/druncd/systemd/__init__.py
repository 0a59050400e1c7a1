"""The host: systemd over D-Bus, and the journal."""
