"""The attack suite as tests, and attacks that need the tests' own fixtures.

`test_attacks.py` runs every case of `pyisolate.attack`, in cells and without the wall. Beside it
are what a cell inherits, how its layers look from outside, and the broker's attacks that need more
than one cell, a server that misbehaves, or time.
"""
