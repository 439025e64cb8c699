"""The links that Airflow's UI shows on a task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from airflow import __version__ as airflow_version
from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom

from airflow_provider_modelslab._outputs.names import is_url
from airflow_provider_modelslab._tasks.results import JOBS_KEY
from airflow_provider_modelslab.ui import PAGE

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, TaskInstanceKey

__all__ = ["ModelsLabOutputLink", "ModelsLabOutputsLink"]

_AIRFLOW_2 = airflow_version.startswith("2.")


class ModelsLabOutputLink(BaseOperatorLink):
    """
    Leads to the first output of a task's jobs.

    While an operator waits, it leads to where ModelsLab says the file will be, if it says so.
    """

    name = "Output"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the URL, or an empty text while there is none."""
        # Airflow 3 asks in the task's own process, and logs an error when an XCom is not there.
        if not (_AIRFLOW_2 or hasattr(operator, "pushed_job_ids")):
            return ""
        return first_address(XCom.get_value(ti_key=ti_key, key=JOBS_KEY))


def first_address(records: Any) -> str:
    """
    Return the first address in job records that a click may lead to; empty where there is none.

    :param records: what stands in the XCom, of any shape: a task may push what it likes.
    """
    addresses = [address for field in ("outputs", "proxy_links", "future_links") for address in _texts(records, field)]
    return next(filter(_may_be_opened, addresses), "")


def _texts(records: Any, field: str) -> Iterator[str]:
    for record in records if isinstance(records, list) else ():
        values = record.get(field) if isinstance(record, Mapping) else None
        yield from (value for value in values if isinstance(value, str)) if isinstance(values, list) else ()


def _may_be_opened(address: str) -> bool:
    """Whether a text is a URL whose host is the one that it seems to have: none with a name before an ``@``."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return False
    return is_url(address) and bool(parts.hostname) and not set("@\\") & set(parts.netloc)


class ModelsLabOutputsLink(BaseOperatorLink):
    """
    Leads to the page "Outputs" of a task, in Airflow itself.

    The link is relative: the browser resolves it against the path of ``[api] base_url``.
    """

    name = "Outputs"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the URL; the page says so itself where there are no outputs."""
        query = {
            "dag_id": ti_key.dag_id,
            "run_id": ti_key.run_id,
            "task_id": ti_key.task_id,
            "map_index": ti_key.map_index,
        }
        return f"{PAGE}?{urlencode(query)}"


OUTPUT_LINKS: tuple[BaseOperatorLink, ...] = (ModelsLabOutputLink(),)
"""The links of each task of ours; Airflow 2 cannot serve the page."""

if not _AIRFLOW_2:
    OUTPUT_LINKS += (ModelsLabOutputsLink(),)
