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
    """

    def __init__(self, reason: str, after: float | None = None):
        super().__init__(reason)
        self.after = after


class ConfigError(Outcome):
    """The analyzer cannot work as it is configured: the analysis is `deferred` until it can."""
