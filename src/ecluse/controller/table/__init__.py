"""The controller's side of table `inet ecluse`."""
