"""The base of all errors whose text is written for the user."""


class UserError(ValueError):
    """What was asked for cannot be done. The text tells the user what, why, and what to do about it."""
