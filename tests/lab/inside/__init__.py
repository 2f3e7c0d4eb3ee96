"""What runs inside a namespace, as child processes.

Standard library only, so that a start takes 30 ms.
"""
