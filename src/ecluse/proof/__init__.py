"""The proof: what the kernel holds is what the site's files say, for every packet there can be.

`meaning` says it from the files, `read_table` and `walk` from what the kernel gives back, `equal`
compares. It shares no code with the compiler, and the core does not import it.
"""
