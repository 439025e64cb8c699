"""
Calls the webhooks of jobs that have ended, as the API does: one attempt, no retry.

The sandbox calls only webhooks on this machine, unless it is started with ``webhooks_anywhere``.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp

logger = logging.getLogger(__name__)

TIMEOUT = aiohttp.ClientTimeout(total=30)


def is_loopback(host: str | None) -> bool:
    """Return whether a host, by its name or address, is this machine. No name is looked up."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


async def deliver(session: aiohttp.ClientSession, url: str, body: Mapping[str, Any]) -> None:
    """
    Post the end of a job to a webhook; a failure is only logged.

    :param url: where to. Redirects are not followed: they could lead to another machine.
    :param body: the JSON to post.
    """
    try:
        async with session.post(url, json=body, timeout=TIMEOUT, allow_redirects=False) as response:
            trouble = "" if response.ok else f"HTTP {response.status}"
    except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
        trouble = type(error).__name__
    if trouble:
        logger.warning("Webhook of job %s to %s failed: %s", body["id"], urlsplit(url).hostname, trouble)
