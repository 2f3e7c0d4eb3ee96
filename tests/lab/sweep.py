"""`python -m tests.lab.sweep`.

Remove the namespaces and directories that dead runs of the lab left behind.
"""

from tests.lab.netns import sweep

if __name__ == "__main__":
    gone = sweep()
    print("\n".join(f"removed {name}" for name in gone) or "nothing was left behind")
