"""A server that echoes the API key wherever it can, and a search for what is left of that."""

from __future__ import annotations

import html
import json
import re
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import sqlalchemy

from tests.support.raw_server import RawServer, reply

KEYS = {
    "short": "k3Y-8chr",
    "long": "Kq7ZpX2mVb9TrLw4HsNc8JyFd3GaUe6PiOo1Rt5Yv0BxMnQzWkSjElDhCgAf",
    "quotes": """it's a "key" \\ with back\\\\slashes""",
    "unicode": "ключ/naïve+🔑 <&> 100%",
}


def spellings(key: str) -> list[str]:
    """The forms in which a server may write a key, in plain text or inside a JSON document."""
    forms = [
        key,
        json.dumps(key)[1:-1],
        json.dumps(json.dumps(key))[1:-1],
        json.dumps(json.dumps({"body": json.dumps({"key": key})})),
        json.dumps(key, ensure_ascii=False)[1:-1],
        json.dumps(key)[1:-1].replace("/", "\\/"),  # as PHP does
        quote(key),
        quote(key, safe=""),
        re.sub("%..", lambda escape: escape[0].lower(), quote(key, safe="")),
        quote_plus(key),
        html.escape(key),
        html.escape(key).replace("&#x27;", "&#039;"),
        repr(key)[1:-1],
        ascii(key)[1:-1],
    ]
    return list(dict.fromkeys(forms))


def traces(text: str, key: str) -> list[str]:
    """Return the forms of a key that a text contains, also one that was put into JSON or a repr once more."""
    once_more = [text, text.replace("\\\\", "\\"), text.encode("latin-1", "replace").decode("utf-8", "replace")]
    return [form for form in spellings(key) if any(form in each for each in once_more)]


def echo(key: str) -> str:
    return " | ".join(spellings(key))


class EchoServer:
    """
    A stand-in for ModelsLab whose every reply is full of the key: errors, headers, redirects, pages, results.

    :param key: the key.
    :param ending: how jobs end: ``success``, ``failed`` or ``refused``; ``processing`` for not yet.
    :param trouble: how many fetches of a job are answered with something else before.
    """

    def __init__(self, key: str, ending: str = "success", trouble: int | None = None) -> None:
        self.key = key
        self.ending = ending
        self._trouble = [self.reply(*each) for each in self.troubles()][:trouble]
        self._fetches: Counter[bytes] = Counter()
        self._lock = threading.Lock()
        self._ids = 0
        self.server = RawServer()
        self.server.answer_to = self._respond

    def __enter__(self) -> EchoServer:
        self.server.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.server.__exit__(None, None, None)

    @property
    def connection(self) -> str:
        extra = {"retries": 1, "request_timeout": 120, "requests_per_second": 1000}
        host = self.server.url
        return json.dumps({"conn_type": "modelslab", "host": host, "password": self.key, "extra": extra})

    def document(self, status: str, **fields: Any) -> dict[str, object]:
        """A JSON object that echoes the key in every field that is not given."""
        text = echo(self.key)
        everywhere = dict.fromkeys(("message", "messege", "error", "tip", "tips", "eta", "generationTime"), text)
        nested = {"meta": {"request": {"key": self.key, self.key: [text]}}, "nsfw_content_detected": text}
        return {"status": status, "proxy_links": [text], **everywhere, **nested, **fields}

    def reply(self, body: object, status: int = 200) -> bytes:
        """A reply with the key in its reason and its headers, too."""
        safe = quote(self.key, safe="")
        headers = {
            "Location": f"http://127.0.0.1:9/api/v6/video/fetch/1?key={safe}",
            "Set-Cookie": f"key={safe}; Path=/",
            "X-Echo": self.key,
            "WWW-Authenticate": f'Basic realm="{safe}"',
            "set-cookie": f"{self.key}[]=1; Expires={self.key}",
        }
        return reply(body, status, headers).replace(b" X\r\n", f" {safe}\r\n".encode(), 1)

    def troubles(self) -> Iterator[tuple[object, int]]:
        """What may pass: the wait goes on."""
        yield self.document("processing"), 200
        yield self.document("error"), 500
        yield f"<html>{echo(self.key)}</html>".encode(), 502
        yield echo(self.key).encode(), 200
        yield json.dumps(self.document("success"))[:-20].encode(), 200
        for status in (301, 302, 303, 307, 308):
            yield self.document("success", output=["https://cdn.example/a.png"]), status

    def refusals(self) -> Iterator[tuple[object, int]]:
        """What ends a wait."""
        for status in (400, 401, 402, 403, 422):
            yield self.document("error"), status
        yield self.document("failed"), 200
        yield self.document("error", message={"prompt": [echo(self.key)]}), 200
        yield self.document("error", message=f"Invalid API key {echo(self.key)}"), 200

    def broken(self) -> Iterator[bytes]:
        """What is no HTTP, with the key in it."""
        yield f"{self.key}\r\n\r\n".encode()
        yield f"HTTP/1.1 {self.key} X\r\n\r\n".encode()
        yield f"HTTP/1.1 200 X\r\n{self.key}\r\n\r\n".encode()
        yield f"HTTP/1.1 200 X\r\nContent-Length: {self.key}\r\n\r\n".encode()
        yield f"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n{self.key}\r\n".encode()
        yield f"HTTP/1.1 302 X\r\nContent-Length: 0\r\nLocation: http://[{self.key}\r\n\r\n".encode()

    def success(self) -> dict[str, object]:
        url = f"https://cdn.example/a.png?key={quote(self.key, safe='')}"
        return self.document("success", output=[url, "https://cdn.example/b.png"])

    def _respond(self, request: bytes) -> bytes:
        path = request.split(b" ", 2)[1]
        with self._lock:
            if b"/fetch" not in path:
                self._ids += 1
                address = f"{self.server.url}/api/v6/video/fetch/{self._ids}?key={quote(self.key, safe='')}"
                return self.reply(self.document("processing", id=self._ids, fetch_result=address, output=[]))
            self._fetches[path] += 1
            if self._fetches[path] <= len(self._trouble):
                return self._trouble[self._fetches[path] - 1]
            return self._last_word()

    def _last_word(self) -> bytes:
        if self.ending == "success":
            return self.reply(self.success())
        if self.ending == "refused":
            return self.reply(self.document("error"), 401)
        return self.reply(self.document(self.ending, id=""))


def traces_in_database(url: str, key: str) -> set[tuple[str, str]]:
    """Return the columns of a database, as table and name, that contain a key in any form."""
    engine = sqlalchemy.create_engine(url)
    try:
        inspector = sqlalchemy.inspect(engine)
        with engine.connect() as connection:
            return {
                (table, column)
                for table in inspector.get_table_names()
                for row in connection.execute(sqlalchemy.text(f'SELECT * FROM "{table}"')).mappings()
                for column, value in row.items()
                if value is not None and traces(_text(value), key)
            }
    finally:
        engine.dispose()


def traces_in_files(folder: Path, key: str, leave_out: Iterable[Path] = ()) -> list[Path]:
    """Return the files below a folder that contain a key in any form."""
    skipped = set(leave_out)
    files = (file for file in folder.rglob("*") if file.is_file() and not file.is_symlink() and file not in skipped)
    return [file for file in files if traces(_text(_content_of(file)), key)]


def _content_of(file: Path) -> bytes:
    """Return what is in a file; nothing where others have removed it meanwhile."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""


def _text(value: object) -> str:
    return bytes(value).decode("utf-8", "replace") if isinstance(value, (bytes, memoryview)) else str(value)
