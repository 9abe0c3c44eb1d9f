"""Errors that the user can fix. The command line prints them as one line; everything else is our bug."""


class Fast3DError(Exception):
    """Something the user can fix; the message is one line that says what to do."""

    exit_code = 1


class DataError(Fast3DError):
    """A file is missing, damaged, or does not fit the others (exit code 1).

    Attributes:
        what: the message without what to do; do: what to do where that is something else than to get the file again,
            else empty.
    """

    def __init__(self, what: str, do: str = ""):
        super().__init__(f"{what}; {do}" if do else what)
        self.what, self.do = what, do


class NotFiniteError(DataError):
    """The LLM computes NaN or infinity: whatever comes of that is no answer."""


class UsageError(Fast3DError):
    """An option or a config value that makes no sense (exit code 2)."""

    exit_code = 2


class PlanError(Fast3DError, ValueError):
    """A plan that no engine can carry out: a fault of the method that made it."""


class StoppedError(Fast3DError):
    """Another process of the same run has stopped, and says why; this one has nothing to add."""

    exit_code = 143  # as if its launcher had ended it
