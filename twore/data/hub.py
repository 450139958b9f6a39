"""Data sets of the Hugging Face hub; without network they fail at once, and not after the client's 20 s of retries.

Whether the hub can be reached is asked with one connection before its client is imported. With HF_HUB_OFFLINE (or
HF_DATASETS_OFFLINE) set nothing is asked and only the client's own cache is read. HF_ENDPOINT names another hub.
"""

from __future__ import annotations

import os
import socket
import urllib.parse
import urllib.request
from typing import Any

from twore.data.images import DataError

CONNECT_SECONDS = 3.0  # our choice: enough for a slow network
OFFLINE_SWITCHES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")


class HubError(DataError):
    """The Hugging Face hub gave no data; the message says why."""


def load_hub(repository: str, *configuration: str, title: str) -> Any:
    """The repository's parts, a mapping name -> Dataset, downloaded or found in the client's cache.

    `title` names the data set in messages. `HubError` at once when the hub cannot be reached.
    """
    offline = [name for name in OFFLINE_SWITCHES if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")]
    if not offline:
        problem = cannot_connect(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
        if problem:
            raise HubError(
                f"cannot fetch {title} from the Hugging Face hub ({problem}); HF_HUB_OFFLINE=1 reads the client's cache"
            )
    import datasets  # takes seconds to import: only when used

    try:
        return datasets.load_dataset(repository, *configuration)
    except Exception as error:  # noqa: BLE001  the hub, its client and the cache fail in many ways, and all mean this
        failed = f"the download failed with {type(error).__name__}"
        reason = f"{offline[0]} is set, and it is not in the cache" if offline else failed
        raise HubError(f"cannot fetch {title} from the Hugging Face hub ({reason})") from error


def cannot_connect(endpoint: str) -> str | None:
    """Why the host (or the proxy in front of it) takes no connection, or None when it does."""
    target = urllib.parse.urlsplit(endpoint if "//" in endpoint else f"https://{endpoint}")
    proxy = urllib.request.getproxies().get(target.scheme)
    if proxy and not urllib.request.proxy_bypass(target.hostname or ""):
        target = urllib.parse.urlsplit(proxy if "//" in proxy else f"//{proxy}")
    try:
        port = target.port or (80 if target.scheme == "http" else 443)
        socket.create_connection((target.hostname or "", port), timeout=CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:  # ValueError: a port that is none
        return f"no connection to {target.hostname}: {getattr(error, 'strerror', None) or error}"
    return None
