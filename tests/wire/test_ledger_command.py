"""``python -m airflow_provider_modelslab.ledger`` as a process: what it prints, and that it needs no database."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_modelslab._ledger.identity import TaskTry
from airflow_provider_modelslab._ledger.receipts import Receipt
from airflow_provider_modelslab.jobs import Job
from tests.support.s3 import serve_bucket

NIGHT = 1_795_820_400.0  # 2026-11-27T23:00:00Z


def stored(run_id: str, job_id: str, item: str = "owl", at: float = NIGHT) -> bytes:
    task = TaskTry(dag_id="gallery", task_id="draw", run_id=run_id)
    job = Job(job_id, "v6/images")
    receipt = Receipt(
        state="succeeded",
        endpoint="v6/images/text2img",
        account="host#1",
        payload_digest=item * 10,
        item=item,
        task=task,
        submitted_at=at,
        job=job,
    )
    return json.dumps(receipt.to_dict()).encode()


FILES = {
    "gallery/run_1/draw/owl.a.1.json": stored("run_1", "11"),
    "gallery/run_2/draw/owl.a.1.json": stored("run_2", "12", at=NIGHT + 3600),
    "gallery/run_2/draw/hare.b.1.json": stored("run_2", "13", item="ha\x1b[31mre", at=NIGHT + 3600),
    "gallery/run_2/draw/broken.c.1.json": b'{"state": "succ',
    "gallery/run_2/notes.json": b"[]",
    "_days/2026-11-27/x": b"",
}


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / "ledger" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "ledger" / name).write_bytes(content)
    return tmp_path / "ledger"


def command(home: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "airflow_provider_modelslab.ledger", *map(str, arguments)],
        env={**os.environ, "AIRFLOW_HOME": str(home / "airflow"), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_answers_whether_we_paid_twice_last_night(tmp_path: Path, ledger: Path):
    done = command(tmp_path, ledger, "--prices", '{"v6/images": 0.005}', "--since", "2026-11-27T18:00")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "Paid for 2 times: the same payload, at v6/images/text2img:" in lines
    assert "  2026-11-27 23:00:00 gallery.draw of run_1, item owl: succeeded 11" in lines
    assert "  2026-11-28 00:00:00 gallery.draw of run_2, item owl: succeeded 12" in lines
    assert [line.split()[-1] for line in lines if line.startswith("all ")] == ["0.015"]
    assert "Not read, as no receipts: 2 files:" in lines
    assert "  gallery/run_2/notes.json" in lines
    assert "\x1b" not in done.stdout
    assert not list((tmp_path / "airflow").glob("*.db"))


def test_the_page_shows_what_it_prints(tmp_path: Path, ledger: Path):
    for name in ("gallery/run_2/draw/broken.c.1.json", "gallery/run_2/notes.json"):
        (ledger / name).unlink()
    (ledger / "gallery/run_2/draw/hare.b.1.json").write_bytes(stored("run_2", "13", item="hare", at=NIGHT + 3600))
    page = (Path(__file__).parents[2] / "docs" / "ledger.md").read_text()
    shown = page.split("```console\n")[1].split("```")[0].splitlines()
    arguments = shlex.split(shown[0])[4:]
    assert command(tmp_path, ledger, *arguments[1:]).stdout.splitlines() == shown[1:]


def test_as_json_it_says_the_same(tmp_path: Path, ledger: Path):
    done = command(tmp_path, ledger, "--json")
    found = json.loads(done.stdout)
    assert [job["job"]["id"] for job in found["jobs"]] == ["11", "13", "12"]
    assert [(day["day"], day["jobs"], day["estimate"]) for day in found["days"]] == [
        ("2026-11-27", 1, None),
        ("2026-11-28", 2, None),
    ]
    assert found["paid_more_than_once"] == [
        {
            "reason": "the same payload, at v6/images/text2img",
            "receipts": ["gallery/run_1/draw/owl.a.1.json", "gallery/run_2/draw/owl.a.1.json"],
        }
    ]
    assert found["not_read"] == ["gallery/run_2/draw/broken.c.1.json", "gallery/run_2/notes.json"]


def test_a_ledger_on_s3_is_read_by_its_airflow_connection(tmp_path: Path):
    with serve_bucket() as bucket:
        for name, content in FILES.items():
            bucket.client.put_object(Bucket="bucket", Key=f"ledger/{name}", Body=content)
        done = command(tmp_path, "s3://aws_default@bucket/ledger", "--json", AIRFLOW_CONN_AWS_DEFAULT=bucket.connection)
    assert len(json.loads(done.stdout)["jobs"]) == 3, done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--help"], 0, "what was paid for more than once"),
        (["file://two/slashes"], 1, "ledger_path 'file://two/slashes' must have three slashes"),
        (["no/such/ledger"], 0, "No receipts there"),
        (["ledger/one.json"], 0, "No receipts there"),
        (["/ledger", "--since", "last night"], 2, "'last night' is not a time"),
        (["/ledger", "--prices", "{"], 2, "the price table must be JSON"),
        (["nosuch://store/ledger"], 1, "Correct ledger_path 'nosuch://store/ledger'"),
    ],
)
def test_it_says_what_is_wrong(tmp_path: Path, arguments: list[str], code: int, words: str):
    (tmp_path / "ledger").mkdir()
    (tmp_path / "ledger/one.json").write_text('{"state": "failed"}')
    done = command(tmp_path, *arguments)
    assert done.returncode == code
    assert words in " ".join((done.stdout + done.stderr).split())
    assert "Traceback" not in done.stderr
