"""What an analyzer can raise instead of returning a result."""


class Outcome(Exception):
    """An end of an analysis other than a result.

    Args:
        reason: one sentence for the people who read the upload's analyses.
    """

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


class Skip(Outcome):
    """The analyzer has nothing to say about this image; that is no error."""


class Fail(Outcome):
    """The analysis failed for good: trying again would not help."""


class RetryLater(Outcome):
    """A service that the analyzer needs is away: the analysis is `deferred` and tried again.

    Args:
        reason: what is away, in one sentence.
        after: seconds to wait before this image is tried again; by default Clustr decides.
        busy: whether the service only has too much to do. That is never the fault of the image: it
            is tried again for as long as it takes. Neither is it with `after`.
    """

    def __init__(self, reason: str, after: float | None = None, busy: bool = False):
        super().__init__(reason)
        self.after = after
        self.busy = busy


class ConfigError(Outcome):
    """The analyzer cannot work as it is configured: the analysis is `deferred` until it can."""
