"""Background tasks of the controller."""
