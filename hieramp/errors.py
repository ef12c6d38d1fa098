"""Whose fault an error is, and how it is told."""


class UserError(ValueError):
    """What a person can mend: one sentence that says what is wrong, with which value, and what to do.

    Commands print it and end with exit code 2, the page shows it. Any other exception is a fault of the program and
    keeps its traceback.
    """


def printable(text: str) -> str:
    """Text from a stranger's file without characters that steer a terminal."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
