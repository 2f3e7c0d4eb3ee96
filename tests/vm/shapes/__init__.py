"""Every shape of gateway.

`catalogue` lists them; `links`, `exits`, `tunnels`, `routing` and `hosts` build them; `runner` runs
inside the guest (standard library alone) and says what it saw, a line of JSON for each.

Not run by `make test-vm` yet: `outside.py` is to become `tests/vm/test_shapes.py`, once the guest's
image has the packages that the shapes need (`images.py`) and each shape was seen on both releases.
"""
