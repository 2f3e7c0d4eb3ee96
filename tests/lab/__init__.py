"""A hospital in network namespaces: real servers, real clients, a witness on the internet side.

Start at `hospital.Hospital`; `daemon.Daemon` runs the real daemon in its gateway. Nothing outside
the namespaces is touched, several hospitals live side by side, and nothing is left of them.
"""
