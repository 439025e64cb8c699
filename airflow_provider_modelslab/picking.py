"""A person in the loop: chooses among outputs before the next task gets them. Needs Airflow 3.1."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from inspect import signature
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_1_PLUS

from airflow_provider_modelslab._outputs.media_types import CONTENT_TYPES, is_text, kind_of_url
from airflow_provider_modelslab._outputs.names import is_url
from airflow_provider_modelslab._protocol.arguments import flatten_jobs
from airflow_provider_modelslab._protocol.formatting import count, one_line
from airflow_provider_modelslab._protocol.outputs import as_text
from airflow_provider_modelslab._tasks.arguments import ConstructorErrors
from airflow_provider_modelslab._tasks.results import FILES_KEY, push_jobs
from airflow_provider_modelslab.exceptions import argument_errors
from airflow_provider_modelslab.jobs import Job, Output
from airflow_provider_modelslab.links import ModelsLabOutputsLink

if not AIRFLOW_V_3_1_PLUS:
    raise ModuleNotFoundError("ModelsLabPickOperator needs Airflow 3.1, which brings the human in the loop")

from airflow.providers.standard.operators.hitl import HITLOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

__all__ = ["ModelsLabPickOperator"]

CANDIDATES_KEY = "candidates"
"""The XCom key of what the person is shown: one record per output with its ``label``, ``output`` and ``file``."""

NONE = "None of these"

_LABEL_LENGTH = 60

_TEXT_LENGTH = 500
"""Characters of an output that is a text or a structured result."""

_TIMEOUT = (
    "response_timeout" if "response_timeout" in signature(HITLOperator.__init__).parameters else "execution_timeout"
)
"""What ``HITLOperator`` calls the time that it waits for an answer: the latter in earlier standard providers."""


class ModelsLabPickOperator(HITLOperator):
    """
    Lets a person choose among outputs; Airflow asks under "Required Actions", with a contact sheet.

    It stands between a sensor or operator and the next task, and hands on what the person has chosen in the same shape:
    the ``return_value`` is the flat list of chosen outputs, the XCom ``files`` has their paths where ``files`` is
    given. The XCom ``jobs`` has all records, so that the rest is not lost. No worker is held while it waits.

    :param jobs: records of jobs, such as ``draw.output["jobs"]``, also of a mapped task. Templated. Without any output
        no question is asked.
    :param files: the paths of the stored outputs, such as ``draw.output["files"]``, also of a mapped task. Templated.
    :param subject: the question. Templated.
    :param multiple: whether several outputs may be chosen.
    :param default: what counts as chosen when ``response_timeout`` is over: ``"all"`` or ``"none"``. Without it, the
        task fails then.
    :param response_timeout: how long to wait for an answer; without it, for ever.
    :param kwargs: ``assigned_users``, ``notifiers`` and all else that ``HITLOperator`` takes.
    """

    template_fields: Sequence[str] = ("jobs", "files", "subject")
    operator_extra_links = (ModelsLabOutputsLink(),)
    ui_color = "#e7e3ff"

    def __init__(
        self,
        *,
        jobs: Any,
        files: Any = None,
        subject: str = "Which of these outputs do you want to use?",
        multiple: bool = True,
        default: Literal["all", "none"] | None = None,
        response_timeout: timedelta | None = None,
        **kwargs: Any,
    ) -> None:
        if response_timeout is not None:
            kwargs[_TIMEOUT] = response_timeout
        # The options are known when the jobs are: this one is always among them.
        super().__init__(subject=subject, options=[NONE], multiple=multiple, **kwargs)
        self.jobs = jobs
        self.files = files
        self.default = default
        with ConstructorErrors(self.task_id):
            if default not in (None, "all", "none"):
                raise ValueError(f"default must be 'all', 'none' or None, not {default!r}")
            if default == "all" and not multiple:
                raise ValueError("default='all' needs multiple=True")

    def execute(self, context: Context) -> Any:
        """Show the outputs, and wait for an answer without a worker; return an empty list where there are none."""
        with argument_errors():
            jobs = _jobs_of(self.jobs)
            files = None if self.files is None else _items_of(self.files, "files")
            candidates = candidates_of(jobs, files)
        push_jobs(context, jobs)
        if not candidates:
            self.log.info("Nothing to choose from: no job has an output")
            return self._hand_on(context, [])
        # The answer is about what the person has seen: Airflow renders the templates again afterwards.
        context["ti"].xcom_push(key=CANDIDATES_KEY, value=candidates)
        labels = [each["label"] for each in candidates]
        self.options = [*labels, NONE]
        self.body = contact_sheet(candidates)
        if self.default is not None:
            self.defaults = labels if self.default == "all" else [NONE]
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Return the outputs that the person has chosen."""
        ti = context["ti"]
        candidates = ti.xcom_pull(task_ids=ti.task_id, key=CANDIDATES_KEY, map_indexes=ti.map_index)
        self.options = [*(each["label"] for each in candidates), NONE]
        chosen = set(super().execute_complete(context, event)["chosen_options"])
        taken = [each for each in candidates if each["label"] in chosen]
        self.log.info("Chosen: %d of %s", len(taken), count(len(candidates), "output"))
        return self._hand_on(context, taken)

    def _hand_on(self, context: Context, taken: Sequence[Mapping[str, Any]]) -> list[Output]:
        if self.files is not None:
            context["ti"].xcom_push(key=FILES_KEY, value=[each["file"] for each in taken])
        return [each["output"] for each in taken]


def _jobs_of(value: Any) -> list[Job]:
    """Return the jobs of records, also of a mapped task's; ``None``, as of a skipped upstream task, are none."""
    records = _items_of(value, "jobs")
    if not all(map(_is_record, records)):
        raise ValueError("jobs must be a list of job records: pass the XCom 'jobs', as in draw.output['jobs']")
    return [Job.from_dict(record) for record in records]


def _is_record(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and isinstance(value.get("outputs"), list)
        and isinstance(value.get("meta", {}), Mapping)
    )


def _items_of(value: Any, argument: str) -> list[Any]:
    return [item for item in flatten_jobs(value, argument) if item is not None]


def candidates_of(jobs: Sequence[Job], files: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """
    Return what a person can choose from: one record per output.

    :param jobs: the jobs; those that failed have no outputs.
    :param files: the path of each output, if they were stored.
    :raises ValueError: there are more or fewer files than outputs.
    """
    outputs = [(job, output) for job in jobs for output in job.outputs]
    if files is not None and len(files) != len(outputs):
        raise ValueError(f"files must have one path for each output, {len(outputs)}, not {len(files)}")
    return [
        {"label": _label(number, job), "output": output, "file": None if files is None else files[number - 1]}
        for number, (job, output) in enumerate(outputs, 1)
    ]


def _label(number: int, job: Job) -> str:
    text = one_line(str(job.meta.get("prompt") or job))
    return f"{number}. {text if len(text) <= _LABEL_LENGTH else text[: _LABEL_LENGTH - 1] + '…'}"


def contact_sheet(candidates: Sequence[Mapping[str, Any]]) -> str:
    """Return the outputs as a table in Markdown: linked pictures, all else as links; foreign text stays text."""
    rows = [_row(each["label"], each["output"]) for each in candidates]
    return "\n".join(["| no. | prompt | output |", "|---|---|---|", *rows])


def _row(label: str, output: Output) -> str:
    number, _, prompt = label.partition(". ")
    return f"| {number} | {_text(prompt)} | {_output(label, output)} |"


def _output(label: str, output: Output) -> str:
    if isinstance(output, str) and not is_url(output) and not is_text(output):
        return "data"
    if not is_url(output):
        return _text(one_line(as_text(output))[:_TEXT_LENGTH])
    address = quote(output, safe="/:?#@!$&'*+,;=%~")
    is_picture = CONTENT_TYPES.get(kind_of_url(output) or "", "").startswith("image/")
    return f"[![{_text(label)}]({address})]({address})" if is_picture else f"[{_escaped(address)}]({address})"


_START_OF_ADDRESS = re.compile(r"(?<=http:)(?=//)|(?<=https:)(?=//)|(?<=www)(?=\.)|(?<=@)", re.IGNORECASE)

_WORD_JOINER = "\u2060"
"""A character that is not seen."""


def _text(foreign: str) -> str:
    """
    Return a text in which nothing is markup.

    Airflow's page makes a link of each address in a text, also of an escaped one: a character in it prevents that.
    """
    return _escaped(_START_OF_ADDRESS.sub(_WORD_JOINER, foreign))


def _escaped(foreign: str) -> str:
    return re.sub(r"([\\`*_{}\[\]()#+\-.!|<>~&$:])", r"\\\1", foreign)
