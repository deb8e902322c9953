"""A quick network check, before a library starts to retry."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request

from registry.errors import JobFailed

REACH_SECONDS = 5


def check_reachable(url: str, *, wanted: str) -> None:
    """Raise JobFailed within seconds when a URL's host does not answer; `wanted` is what was to be downloaded. Proxies are honoured."""
    request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "loraloom"})
    try:
        with urllib.request.urlopen(request, timeout=REACH_SECONDS):
            return
    except urllib.error.HTTPError:
        return  # it answers
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLError):
            return  # it answers; the client checks certificates
        raise JobFailed(
            f"{wanted} was not downloaded: {url} cannot be reached ({reason}). Check the network, and HTTPS_PROXY where there is a proxy."
        ) from error
