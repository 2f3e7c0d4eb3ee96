"""Every shape of gateway.

`catalogue` lists them; `links`, `exits`, `tunnels`, `routing`, `hosts` and `helpers` build them;
`runner` runs inside the guest (standard library and the installed product) and says what it saw, a
line of JSON for each. `tests/vm/test_shapes.py` compares that with the catalogue.
"""
