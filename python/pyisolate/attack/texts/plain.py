"""What attacks are written with that may import nothing."""


def attempt(action):
    """Run an attack; say how it ended, as plain data."""
    try:
        value = action()
    except Exception as error:
        return ["refused", [kind.__name__ for kind in type(error).__mro__], str(error)]
    return ["done", repr(value)]
