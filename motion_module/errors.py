"""The base of all errors whose text is written for the user, and those that several parts raise."""


class UserError(ValueError):
    """What was asked for cannot be done. The text tells the user what, why, and what to do about it."""


class MissingDependency(RuntimeError):
    """A package or file that is needed is not installed. The text is for the user."""


class UnreadableVideo(UserError):
    """A video cannot be used. The text is for the user; it follows the name of the video and a colon."""
