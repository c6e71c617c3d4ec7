"""Quotas: how much of something somebody may use in a time, and how much of it is left."""

from dataclasses import dataclass

REQUESTS, BYTES, WRONG_KEYS = "requests", "bytes", "wrong-keys"


@dataclass(frozen=True, slots=True)
class Quota:
    """How much of something somebody may use in any span of time.

    Attributes:
        name: what it limits.
        holder: whose it is, such as an address or the id of a key.
        amount: how much may be used.
        seconds: in a span of so many.
    """

    name: str
    holder: str
    amount: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Use:
    """What a request uses of a quota.

    Attributes:
        cost: how much.
        is_counted: whether that is taken from the quota; else only whether it is there is asked.
    """

    quota: Quota
    cost: int = 1
    is_counted: bool = True


@dataclass(frozen=True, slots=True)
class Standing:
    """How much of a quota is left.

    Attributes:
        is_exceeded: whether there was not enough for the use. Then nothing was taken.
        remaining: how much is left.
        seconds: until there is enough for the use, if there was not; else until more is left.
    """

    quota: Quota
    is_exceeded: bool
    remaining: int
    seconds: float
