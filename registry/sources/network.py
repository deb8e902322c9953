"""Whether there is a network at all, asked before a library begins to try again and again."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request

from registry.errors import JobFailed

REACH_SECONDS = 5


def check_reachable(url: str, *, wanted: str) -> None:
    """Raises JobFailed, in seconds, when the machine of a URL does not answer; `wanted` is what it was to give. Proxies are honoured."""
    request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "loraloom"})
    try:
        with urllib.request.urlopen(request, timeout=REACH_SECONDS):
            return
    except urllib.error.HTTPError:
        return  # it answers
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLError):
            return  # it answers; certificates are its client's to judge
        raise JobFailed(
            f"{wanted} was not fetched: {url} cannot be reached ({reason}). Check the network, and HTTPS_PROXY where there is a proxy."
        ) from error
