"""Which certificate authorities TLS connections trust: one rule for polls, submissions and downloads."""

from __future__ import annotations

import os
import ssl

import requests

_CA_BUNDLE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""
What requests and OpenSSL read. The first that is set counts, for both transports: OpenSSL alone would read the last
two, and requests alone the first two.
"""


def create_ssl_context(ca_bundle: str | None = None) -> ssl.SSLContext:
    """
    Return a TLS context with the certificates to trust. It reads a long file: make one for each session, in a thread.

    :param ca_bundle: the file, or the folder, of the certificate authorities; where it is ``None``, that which an
        environment variable names, or else the one that requests brings along.
    :raises ValueError: there are no certificates there; the message names the path and who asked for it.
    """
    named = [("its extra field 'ca_bundle'", ca_bundle)]
    named += [(f"the environment variable {name}", os.environ.get(name)) for name in _CA_BUNDLE_VARIABLES]
    who, path = next(((who, path) for who, path in named if path), ("requests", requests.utils.DEFAULT_CA_BUNDLE_PATH))
    try:
        if os.path.isdir(path):
            return ssl.create_default_context(capath=path)
        return ssl.create_default_context(cafile=path)
    except OSError as error:  # an SSLError, where the content is wrong
        reason = "holds no certificates" if isinstance(error, ssl.SSLError) else f"cannot be read: {error.strerror}"
        raise ValueError(f"{who} names the file {path!r}, which {reason}") from None
