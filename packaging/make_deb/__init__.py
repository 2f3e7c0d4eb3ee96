"""Builds the Debian packages: one for each suite, complete for an installation without a network."""
