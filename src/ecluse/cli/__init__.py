"""The command line `ecluse`: verbs on the daemon's socket, and checks that need no daemon."""
