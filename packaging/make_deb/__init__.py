"""Builds the Debian packages, one for each suite; installing one needs no network."""
