"""
What the api-server serves: the page "Outputs" with its script and style, and stored media.

The page holds no data: its script reads them from Airflow's REST API with the visitor's own session. Airflow does not
check who visits the applications of plugins, so each route here asks for the rights that Airflow itself asks for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from airflow import __version__ as airflow_version
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag
from airflow.models.xcom import XComModel
from airflow.providers.common.compat.sdk import conf
from airflow.utils.session import create_session
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse

from airflow_provider_modelslab._tasks.results import FILES_KEY
from airflow_provider_modelslab.ui import media

_STATIC = Path(__file__).parent / "static"

_MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html"}

# Airflow 3.0 keeps a visitor's session in the browser's storage, where no server sees it: the page itself is open
# there (its data are not), and media are not served.
_KNOWS_VISITORS = not airflow_version.startswith("3.0.")

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}

_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' http: https:; "
    "media-src 'self' http: https:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)

_MEDIA_POLICY = "default-src 'none'; style-src 'unsafe-inline'; sandbox; frame-ancestors 'none'"

_REFUSALS = {
    401: ("Not logged in", "Log in to Airflow, then open this page again."),
    403: ("No access", "You may not read the XComs of this DAG. Ask the administrator of this Airflow for the right."),
}

_may_read_xcoms = [Depends(requires_access_dag("GET", DagAccessEntity.XCOM))] if _KNOWS_VISITORS else []

app = FastAPI(title="ModelsLab outputs", docs_url=None, redoc_url=None, openapi_url=None)


@app.get("/outputs", dependencies=_may_read_xcoms, response_class=HTMLResponse)
def page(dag_id: str, run_id: str) -> Response:
    """Return the page of a DAG run, or of one of its tasks where the query names one."""
    html = (_STATIC / "outputs.html").read_text("utf-8")
    if _KNOWS_VISITORS and _media_roots():
        html = html.replace('data-media="off"', 'data-media="on"')
    return _html(html)


@app.get("/static/{name}")
def static(name: str) -> Response:
    """Return a part of the page; nothing in it is secret."""
    path = next((path for path in _STATIC.iterdir() if path.name == name), None)
    if path is None:
        raise HTTPException(404)
    headers = {**_HEADERS, "Cache-Control": "no-cache"}
    return Response(path.read_bytes(), media_type=_MEDIA_TYPES[path.suffix], headers=headers)


if _KNOWS_VISITORS:

    @app.api_route("/media", methods=["GET", "HEAD"], dependencies=_may_read_xcoms)
    def stored(
        request: Request,
        dag_id: str,
        run_id: str,
        task_id: str,
        path: str,
        map_index: int = Query(-1, ge=-1),
        download: bool = False,
    ) -> Response:
        """
        Return a stored file of a task, or a part of it, or lead to where the store hands it out itself.

        :param path: the file, as the task's XCom ``files`` has it. Nothing else is served, and of that only what is
            below one of ``[modelslab] media_roots``.
        """
        if path not in _files_of(dag_id, run_id, task_id, map_index):
            raise HTTPException(404, "The task has stored no such file")
        try:
            file = media.open_stored(path, _media_roots())
        except media.Refused as error:
            raise HTTPException(404, str(error)) from error
        if url := file.signed_url(download):
            return RedirectResponse(url, 307, headers={**_HEADERS, "Cache-Control": "no-store"})
        try:
            asked = media.parse_range(request.headers.get("Range"), file.size)
        except ValueError as error:
            raise HTTPException(416, headers={"Content-Range": f"bytes */{file.size}"}) from error
        part = range(file.size) if asked is None else asked
        headers = {
            **_HEADERS,
            "Content-Security-Policy": _MEDIA_POLICY,
            "Cache-Control": "private, max-age=300",
            "Accept-Ranges": "bytes",
            "Content-Length": str(len(part)),
            "Content-Disposition": media.disposition(path, download),
        }
        if asked is not None:
            headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{file.size}"
        chunks: Iterator[bytes] = file.read(part) if request.method == "GET" else iter(())
        status = 200 if asked is None else 206
        return StreamingResponse(chunks, status, headers=headers, media_type=media.media_type(path))


@app.exception_handler(HTTPException)
def refuse(request: Request, error: Exception) -> Response:
    """Say in words why a person does not get the page; everything else gets the status."""
    assert isinstance(error, HTTPException)  # noqa: S101 - this is registered for no other
    headers = {**_HEADERS, **(error.headers or {})}
    if request.url.path.endswith("/outputs") and error.status_code in _REFUSALS:
        title, text = _REFUSALS[error.status_code]
        html = (_STATIC / "refused.html").read_text("utf-8").replace("{title}", title).replace("{text}", text)
        return _html(html, error.status_code)
    return Response(str(error.detail), error.status_code, headers=headers, media_type="text/plain")


def _html(html: str, status: int = 200) -> Response:
    headers = {**_HEADERS, "Content-Security-Policy": _PAGE_POLICY, "Cache-Control": "no-store"}
    return HTMLResponse(html, status, headers=headers)


def _media_roots() -> list[str]:
    return [root.strip() for root in conf.get("modelslab", "media_roots", fallback="").split(",") if root.strip()]


def _files_of(dag_id: str, run_id: str, task_id: str, map_index: int) -> list[Any]:
    """Return the paths in the XCom ``files`` of a task instance; none where it has none, or something else."""
    query = XComModel.get_many(
        run_id=run_id, key=FILES_KEY, task_ids=task_id, dag_ids=dag_id, map_indexes=map_index, limit=1
    )
    with create_session(scoped=False) as session:
        entry: Any = session.scalars(query).first()
        value = None if entry is None else entry.value
    if isinstance(value, str):  # as Airflow 3.0 stores it
        try:
            value = json.loads(value)
        except ValueError:
            return []
    return value if isinstance(value, list) else []
