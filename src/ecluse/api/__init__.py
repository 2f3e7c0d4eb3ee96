"""The local API: wire models, server on a UNIX socket, peer credentials and roles, client."""
