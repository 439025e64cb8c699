"""The metadata database, for questions that no API answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from sqlalchemy import Column, LargeBinary, MetaData, Text, cast, create_engine, select, text
from sqlalchemy.pool import NullPool


class Database:
    """
    A database of an Airflow that may be running; no connection is kept.

    :param url: its SQLAlchemy URL.
    """

    def __init__(self, url: str) -> None:
        self._engine = create_engine(url, poolclass=NullPool)

    def sql(self, statement: str, **parameters: Any) -> list[dict[str, Any]]:
        """
        Run a statement in a transaction of its own.

        :param statement: SQL, with ``:name`` where a parameter goes.
        :return: its rows, by the names of their columns; none where it returns none.
        """
        with self._engine.begin() as connection:
            result = connection.execute(text(statement), parameters)
            return [dict(row) for row in result.mappings()] if result.returns_rows else []

    def texts(self) -> Iterator[tuple[str, str]]:
        """Read everything: for each value of each row of each table ``table.column`` and the value as stored text."""
        metadata = MetaData()
        metadata.reflect(self._engine)
        with self._engine.connect() as connection:
            for table in metadata.sorted_tables:
                # As text, a JSON column stays as it was written, and every type has one.
                rows = connection.execute(select(*map(_as_text, table.columns)))
                for row in rows:
                    for column, value in zip(table.columns, row, strict=True):
                        if value is not None:
                            stored = bytes(value).decode(errors="replace") if not isinstance(value, str) else value
                            yield f"{table.name}.{column.name}", stored

    def places_of(self, needle: str) -> set[str]:
        """
        Find where something is stored in readable form: plainly, or as it is spelled in JSON (also JSON within JSON),
        in a ``repr`` or in a URL.

        :return: each ``table.column`` that contains it.
        """
        spellings = _spellings(needle)
        return {place for place, stored in self.texts() if any(spelling in stored for spelling in spellings)}


def _as_text(column: Column[Any]) -> Any:
    # Binary columns, which PostgreSQL would show in hexadecimal, often contain text.
    return column if isinstance(column.type, LargeBinary) else cast(column, Text)


def _spellings(needle: str) -> set[str]:
    ascii_json, json_text = (json.dumps(needle, ensure_ascii=ensure)[1:-1] for ensure in (True, False))
    nested = {json.dumps(spelling)[1:-1] for spelling in (ascii_json, json_text)}
    return {needle, ascii_json, json_text, *nested, repr(needle)[1:-1], quote(needle, safe=""), quote(needle)}
