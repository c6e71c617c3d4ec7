"""The connection to Redis, and what its errors are called here."""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from clustr import logs
from clustr.domain import failure_messages
from clustr.domain.errors import QueueUnavailable, StartUpError
from clustr.domain.secrets import credentials_in, register_secrets

log = logs.logger(__name__)


@contextmanager
def translate_redis_errors() -> Iterator[None]:
    """Raise `QueueUnavailable` instead of redis-py's errors: Redis is away, frozen or full.

    Raises:
        QueueUnavailable: code in the block raised a `RedisError`.
    """
    try:
        yield
    except RedisError as error:
        log.warning("queue_unavailable", error=f"{type(error).__name__}: {error}"[:300])
        raise QueueUnavailable from error


def connect(url: str, timeout_seconds: float | None) -> Redis:
    """Make a client that gives up after `timeout_seconds` and does not try twice.

    The defaults of redis-py would let a frozen Redis hold a request for most of a minute.

    Raises:
        StartUpError: `url` is not the address of a Redis.
    """
    register_secrets(credentials_in(url))
    try:
        _ = urlsplit(url).port  # redis-py's own error would show the text.
    except ValueError:
        raise StartUpError("REDIS_URL is no address of a Redis: its port is no number") from None
    try:
        return Redis.from_url(
            url,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            retry=Retry(NoBackoff(), 0),
        )
    except (ValueError, TypeError) as error:
        reason = failure_messages.as_plain_text(error)
        raise StartUpError(f"REDIS_URL is no address of a Redis: {reason}") from None
