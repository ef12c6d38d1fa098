"""Whose fault an error is."""


class UserError(ValueError):
    """What a person can mend: one sentence that says what is wrong, with which value, and what to do.

    Commands print it and end with exit code 2, the page shows it. Any other exception is a fault of the program and
    keeps its traceback.
    """
