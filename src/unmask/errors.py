"""The errors that a user can act on."""


class UserError(Exception):
    """Something that the user gave cannot be used.

    The message is one line that names the thing, its value, and the way out. The command line prints it
    without a traceback and exits with code 2; in Python it is raised as any other exception.
    """


class MissingExtraError(UserError):
    """A command needs an optional dependency that is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the extra {extra!r}: pip install 'unmask[{extra}]'")
