"""druncctl, the command line of druncd."""
