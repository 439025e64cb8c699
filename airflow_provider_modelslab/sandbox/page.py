"""
The page at ``/`` of a sandbox: its jobs, what they have made, and the commands that control it.

It can only be looked at: it has no script and no form, and what clients have sent stands in it as plain text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from airflow_provider_modelslab.sandbox.faults import FAULTS
from airflow_provider_modelslab.sandbox.http import Reply
from airflow_provider_modelslab.sandbox.replies import output_urls
from airflow_provider_modelslab.sandbox.state import FIRST_JOB_ID, Job

_MAX_JOBS = 100

_MAX_TEXT = 300

_PICTURES = frozenset({"png", "jpg", "gif"})

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src 'self'; style-src 'unsafe-inline'">
<meta http-equiv="refresh" content="5">
<title>ModelsLab sandbox</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ border-bottom: 1px solid #8884; padding: .4rem .6rem; text-align: left; vertical-align: top; }}
td {{ overflow-wrap: anywhere; }}
img {{ height: 64px; margin-right: .3rem; }}
pre {{ background: #8882; overflow-x: auto; padding: .8rem; }}
.failed {{ color: #c33; }}
</style>
</head>
<body>
<h1>ModelsLab sandbox</h1>
<p>{counts}</p>
<table>
<thead><tr><th>job</th><th>endpoint</th><th>status</th><th>prompt</th><th>outputs</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>
<h2>Commands</h2>
<pre>
{commands}
</pre>
<p>Faults: {faults}.</p>
</body>
</html>
"""


def page(jobs: Mapping[int, Job], state: Mapping[str, Any], url: str) -> Reply:
    """
    Return the page.

    :param jobs: all jobs by id, oldest first.
    :param state: the counters of the sandbox.
    :param url: the address of the sandbox, as its commands need it.
    """
    newest = list(jobs.values())[::-1][:_MAX_JOBS]
    content = _PAGE.format(
        counts=escape(_counts(state, len(jobs))),
        rows="\n".join(map(_row, newest)) or '<tr><td colspan="5">No job was submitted yet.</td></tr>',
        commands=escape("\n".join(_commands(url, next((job.id for job in newest), FIRST_JOB_ID)))),
        faults=escape(", ".join(FAULTS)),
    )
    return Reply(body=content.encode(), content_type="text/html")


def _counts(state: Mapping[str, Any], jobs: int) -> str:
    by_status = ", ".join(f"{count} {status}" for status, count in state["jobs"].items())
    shown = f" The newest {_MAX_JOBS} are shown." if jobs > _MAX_JOBS else ""
    return f"Jobs: {by_status}. Balance: {state['balance']:g} dollars.{shown}"


def _commands(url: str, job_id: int) -> Iterable[str]:
    yield "# end all jobs now, or one of them; let one fail"
    yield f"curl -X POST {url}/sandbox/finish"
    for name, arguments in (
        ("finish", {"id": job_id}),
        ("fail", {"id": job_id, "message": "No GPU left"}),
        ("faults", {"http_502": 0.2}),
        ("script", {"kind": "fetch", "faults": ["http_502", "drop"]}),
        ("skip", {"seconds": 3600}),
        ("reset", {}),
    ):
        if name == "faults":
            yield "# let faults strike by chance; say what the next replies meet; move the clock; forget everything"
        yield f"curl -X POST {url}/sandbox/{name}" + (f" -d '{json.dumps(arguments)}'" if arguments else "")
    yield "# the counters"
    yield f"curl {url}/sandbox/state"


def _row(job: Job) -> str:
    status = job.status if job.status != "failed" else f"failed: {job.failure}"
    prompt = job.request.meta.get("prompt", "")
    cells = (str(job.id), job.request.endpoint, status, prompt if isinstance(prompt, str) else json.dumps(prompt))
    texts = "".join(f"<td>{escape(text[:_MAX_TEXT])}</td>" for text in cells)
    return f'<tr class="{job.status}">{texts}<td>{_outputs(job)}</td></tr>'


def _outputs(job: Job) -> str:
    if job.status != "success":
        return ""
    is_picture = job.request.kind in _PICTURES and not job.request.base64
    urls = [escape(url) for url in output_urls(job, "")]
    shown = [f'<img src="{url}" alt="output" loading="lazy">' if is_picture else job.request.kind for url in urls]
    return " ".join(f'<a href="{url}">{what}</a>' for url, what in zip(urls, shown, strict=True))
