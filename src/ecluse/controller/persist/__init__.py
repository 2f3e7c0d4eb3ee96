"""What the controller puts on disk."""
