"""
Lineage: which file came from which job, for Airflow's collector and for OpenLineage.

A job is an asset of the scheme ``modelslab``: ``modelslab://modelslab.com/v6/video/147``. It holds neither key nor
prompt. Airflow's collector keeps up to 100 assets of a task, and only where a plugin reads them, such as OpenLineage's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from airflow_provider_modelslab.endpoints import route_of
from airflow_provider_modelslab.jobs import Job

if TYPE_CHECKING:
    from airflow.providers.common.compat.openlineage.facet import Dataset
    from airflow.providers.common.compat.sdk import Asset
    from airflow.providers.openlineage.extractors import OperatorLineage

SCHEME = "modelslab"

SOURCE = "modelslab_job"
"""The field in the ``extra`` of a file's asset that names its job."""

_PLAIN_IN_PATHS = "/:@!$&'()*+,;=~"

_log = logging.getLogger(__name__)


def job_uri(job: Job, base_url: str | None) -> str:
    """
    Return the URI of a job.

    :param job: the job.
    :param base_url: the connection's own host, where it has one: its jobs are known there only.
    """
    official = job.host or route_of(job.endpoint).host
    host = urlsplit(base_url).netloc.rpartition("@")[2] if base_url else official
    return f"{SCHEME}://{host}/{job.endpoint}/{quote(job.id, safe='')}"


def file_uri(path: str) -> str:
    """
    Return the URI of a stored file, without the connection that stands before its bucket.

    What means something else in a URI is escaped: Airflow drops all behind a ``#``, and Airflow 2 takes only ASCII.
    """
    if path.startswith("/"):
        path = f"file://{path}"
    scheme, _, rest = path.partition("://")
    place, slash, name = rest.partition("/")
    return f"{scheme}://{place.rpartition('@')[2]}{slash}{quote(name, safe=_PLAIN_IN_PATHS)}"


def report_files(files: Iterable[tuple[Job, Sequence[str]]], output_path: str, base_url: str | None) -> None:
    """
    Report stored files to Airflow's lineage collector, each with its job as its source.

    :param files: the jobs, each with the paths of its files.
    :param output_path: the folder.
    :param base_url: the connection's own host, where it has one.
    """
    from airflow.providers.common.compat.lineage.hook import get_hook_lineage_collector
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    try:
        collector = get_hook_lineage_collector()  # type: ignore[no-untyped-call]
        folder = ObjectStoragePath(output_path)
        for job, paths in files:
            source = job_uri(job, base_url)
            if paths:
                collector.add_input_asset(folder, uri=source)
            for path in paths:
                collector.add_output_asset(folder, uri=file_uri(path), asset_extra={SOURCE: source})
    except Exception as error:  # the files are stored, also without their lineage
        _log.warning("The lineage of the stored files was not reported (%s)", type(error).__name__)


def openlineage_facets(job_ids: Sequence[str]) -> OperatorLineage:
    """
    Return what OpenLineage is told of a task beside its datasets: which jobs it has waited for.

    Called where Airflow's OpenLineage provider is installed, and by it only.

    :param job_ids: the ids of the jobs. OpenLineage knows one external query of a run: several ids stand in it
        separated by commas.
    """
    from airflow.providers.common.compat.openlineage.facet import ExternalQueryRunFacet
    from airflow.providers.openlineage.extractors import OperatorLineage

    if not job_ids:
        return OperatorLineage()
    query = ExternalQueryRunFacet(externalQueryId=",".join(job_ids), source=SCHEME)
    return OperatorLineage(run_facets={"externalQuery": query})


def to_openlineage(asset: Asset, context: Any) -> Dataset:
    """Return the dataset that OpenLineage shows for a job: what Airflow calls for assets of the scheme."""
    from airflow.providers.common.compat.openlineage.facet import Dataset

    parts = urlsplit(asset.uri)
    return Dataset(namespace=f"{SCHEME}://{parts.netloc}", name=parts.path.lstrip("/"))
