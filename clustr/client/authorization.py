"""How requests say who sends them."""

from collections.abc import Callable

import requests


def with_key(key: str) -> Callable[[requests.PreparedRequest], requests.PreparedRequest]:
    """What adds a key to requests. `requests` leaves it out when another host is redirected to."""

    def add(request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {key}"
        return request

    return add
