"""Records of the controller on disk."""
