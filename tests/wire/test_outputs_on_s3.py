"""Outputs stored on S3: a real bucket of a local server."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import requests

from airflow_provider_modelslab.exceptions import ModelsLabArgumentError, ModelsLabSaveError
from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.operators import ModelsLabGenerateOperator
from airflow_provider_modelslab.sandbox import Sandbox
from airflow_provider_modelslab.ui.media import open_stored
from tests.support.raw_server import RawServer, stalling
from tests.support.s3 import Bucket, serve_bucket
from tests.support.storing import ENCODED, PNG, RESIGNED, job, picture, run_python, save_outputs, saving
from tests.support.tasks import RecordingTaskInstance
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def s3_server() -> Iterator[Bucket]:
    with serve_bucket() as bucket:
        yield bucket


@pytest.fixture
def bucket(s3_server: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", s3_server.connection)
    s3_server.empty()
    return s3_server


LARGE = PNG + bytes(12 * 2**20)


def test_s3(bucket: Bucket, raw_server: RawServer):
    raw_server.answer(picture(LARGE), picture(PNG))
    output_path = "s3://aws_default@bucket/2026-11-20/"
    large, small = job(f"{raw_server.url}/a.png", job_id="1"), job(ENCODED, job_id="2")
    stored = save_outputs([large, small], output_path)
    assert stored == [f"{output_path}v6.images.1-0.png", f"{output_path}v6.images.2-0.png"]
    objects = bucket.objects()
    assert objects["2026-11-20/v6.images.1-0.png"] == LARGE
    assert objects["2026-11-20/v6.images.2-0.png"] == PNG
    assert json.loads(objects["2026-11-20/v6.images.1.job.json"])["files"] == ["v6.images.1-0.png"]
    assert len(objects) == 4
    content_types = {
        key: bucket.client.head_object(Bucket="bucket", Key=key)["ContentType"].rpartition("/")[2] for key in objects
    }
    assert set(content_types.values()) == {"png", "json"}
    assert all(key.endswith(content_type) for key, content_type in content_types.items())
    assert save_outputs([large, small], output_path) == stored
    assert len(raw_server.requests) == 1
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    with ObjectStoragePath(stored[1]).open("rb") as file:
        assert file.read() == PNG


def test_s3_has_the_inputs_of_generations(bucket: Bucket, sandbox: Sandbox):
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    bucket.client.put_object(Bucket="bucket", Key="fox.png", Body=PNG)
    (path, missing) = (ObjectStoragePath(f"s3://aws_default@bucket/{name}.png") for name in ("fox", "missing"))
    assert requests.get(ModelsLabHook().upload(path), timeout=120).content == PNG
    operator = ModelsLabGenerateOperator(
        task_id="draw", endpoint="v6/images/img2img", payload={"prompt": "x", "init_image": missing}
    )
    with pytest.raises(
        ModelsLabArgumentError, match=r"payload\['init_image'\]: the file s3://.*missing.png cannot be read"
    ):
        operator.execute({"ti": RecordingTaskInstance()})
    assert not sandbox.jobs


@pytest.mark.parametrize("content", [LARGE, PNG], ids=["large", "small"])
def test_s3_shows_no_half_of_a_file(bucket: Bucket, raw_server: RawServer, content: bytes):
    """Neither a part of it nor an upload that costs; and what was there before is still there."""
    raw_server.answer(picture(), picture(content)[:-10])
    one = [job(f"{raw_server.url}/a.png")]
    save_outputs(one, "s3://aws_default@bucket/", if_exists="overwrite")
    with pytest.raises(ModelsLabSaveError, match="broke off"):
        save_outputs(one, "s3://aws_default@bucket/", if_exists="overwrite", retry_policy=RESIGNED)
    with pytest.raises(ModelsLabSaveError, match="broke off"):
        save_outputs([job(f"{raw_server.url}/a.png", job_id="2")], "s3://aws_default@bucket/", retry_policy=RESIGNED)
    import gc

    gc.collect()  # an upload that is merely forgotten is completed when it is deleted
    assert bucket.objects()["v6.images.147-0.png"] == PNG
    assert set(bucket.objects()) == {"v6.images.147-0.png", "v6.images.147.job.json"}
    assert bucket.uploads() == []


def test_s3_and_a_worker_killed(bucket: Bucket, raw_server: RawServer):
    raw_server.answer(stalling(picture(LARGE)[:-10]))
    code = f"import os; os.environ['AIRFLOW_CONN_AWS_DEFAULT'] = {bucket.connection!r}\n"
    process = run_python(code + saving(f"{raw_server.url}/a.png", "s3://aws_default@bucket/"))
    try:
        wait_until(lambda: bool(bucket.uploads()))
    finally:
        process.kill()
        process.wait()
    assert bucket.objects() == {}


def test_s3_without_the_bucket(bucket: Bucket):
    """It is not made: a bucket that is not there is a slip of the pen."""
    with pytest.raises(ModelsLabSaveError, match=r"no-such-bucket.*cannot be used"):
        save_outputs([job(ENCODED)], "s3://aws_default@no-such-bucket/x/", if_exists="overwrite")
    assert [b["Name"] for b in bucket.client.list_buckets()["Buckets"]] == ["bucket"]


def test_the_page_sends_browsers_to_a_url_that_the_store_has_signed(bucket):
    bucket.client.put_object(Bucket="bucket", Key="generated/fox.png", Body=PNG)
    file = open_stored("s3://aws_default@bucket/generated/fox.png", ["s3://aws_default@bucket/generated"])
    url = file.signed_url(download=False)
    assert url is not None
    assert requests.get(url, timeout=120).content == PNG == b"".join(file.read(range(file.size)))
    assert "test-secret" not in url


@pytest.mark.parametrize(("name", "download"), [("lyrics.txt", False), ("words.json", False), ("fox.png", True)])
def test_what_browsers_take_from_the_own_site_only_comes_from_the_api_server(bucket, name, download):
    """The page's script may read from nowhere else, and of another site a browser shows what it is to save."""
    bucket.client.put_object(Bucket="bucket", Key=f"generated/{name}", Body=b"a walk")
    file = open_stored(f"s3://aws_default@bucket/generated/{name}", ["s3://aws_default@bucket/generated"])
    assert file.signed_url(download) is None
    assert b"".join(file.read(range(2, 6))) == b"walk"
