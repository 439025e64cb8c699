"""
Judging the arguments of a task before anything is paid for: when the DAG is parsed, else when they are rendered.

Sensor and operator share these rules. An error is a ``ModelsLabArgumentError`` that names the argument; Airflow does
not retry it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from airflow_provider_modelslab._ledger.ledger import ON_CLEARS, REUSES
from airflow_provider_modelslab._protocol.arguments import parse_if_exists, parse_output_path
from airflow_provider_modelslab._protocol.kinds import kind_of
from airflow_provider_modelslab._protocol.templates import delimiters_of, is_rendered
from airflow_provider_modelslab.exceptions import ModelsLabArgumentError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator


class ConstructorErrors:
    """
    Lets the error about an argument of a constructor name the task, and end where the user has written it.

    Airflow shows people the last two entries of a traceback (``[core] dagbag_import_error_traceback_depth``): they
    become the line of the user's file and that of the constructor.

    :param task_id: the task that is made.
    """

    def __init__(self, task_id: str) -> None:
        self._task_id = task_id

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, ValueError):
            named = ModelsLabArgumentError(f"Task {self._task_id!r}: {error}")
            raise named.with_traceback(_traceback_for_users(sys._getframe(1))) from None


def _traceback_for_users(constructor: FrameType) -> TracebackType | None:
    """Return a traceback of the line outside Airflow that a constructor was called by, and of the constructor."""
    caller = constructor.f_back
    while caller is not None and re.match(r"airflow(_provider_modelslab)?(\.|$)", caller.f_globals.get("__name__", "")):
        caller = caller.f_back
    inner = TracebackType(None, constructor, constructor.f_lasti, constructor.f_lineno)
    return caller and TracebackType(inner, caller, caller.f_lasti, caller.f_lineno)


def rendered_for(operator: BaseOperator) -> Callable[[Any], bool]:
    """Return the function that tells whether an argument of a task is final at parse time."""
    dag = operator.get_dag()
    delimiters = None if dag is None else delimiters_of(dag.jinja_environment_kwargs)
    return partial(is_rendered, delimiters=delimiters)


def is_mapped(operator: BaseOperator) -> bool:
    """Whether a task is one instance of a mapped task: then it is made when it runs, with values of upstreams."""
    return bool(getattr(operator, "_BaseOperator__from_mapped", False))


def judge_storing(output_path: Any, if_exists: Any, return_files: bool, is_final: Callable[[Any], bool]) -> None:
    """
    Refuse wrong arguments about stored files.

    :param output_path: the folder, or ``None``.
    :param if_exists: what happens to files that are there.
    :param return_files: whether the task returns the paths of the files.
    :param is_final: tells whether a value is known yet.
    :raises ValueError: one of them is wrong.
    """
    parse_if_exists(if_exists)
    if output_path is None:
        if return_files:
            raise ValueError("return_files needs an output_path: without one, no files are stored")
    elif is_final(output_path):
        parse_output_path(output_path)


def refuse_storing(endpoint: str) -> None:
    """
    Refuse to store what is no file.

    :param endpoint: the endpoint of jobs.
    :raises ValueError: they are trainings.
    """
    kind = kind_of(endpoint)
    if kind is not None and not kind.has_files:
        raise ValueError(f"output_path has no effect on a {kind.name}, whose result is the id of a model: leave it out")


def judge_remembering(
    durable: bool, ledger_path: Any, on_clear: Any, reuse: Any, output_path: Any, is_final: Callable[[Any], bool]
) -> None:
    """
    Refuse wrong arguments about the ledger.

    :param durable: whether anything is remembered.
    :param ledger_path: the folder of the ledger, or ``None``.
    :param on_clear: what a finished task does that is cleared.
    :param reuse: who may take up a job.
    :param output_path: the folder of the outputs, or ``None``.
    :param is_final: tells whether a value is known yet.
    :raises ValueError: one of them is wrong.
    """
    if on_clear not in ON_CLEARS:
        raise ValueError(f"on_clear must be one of {', '.join(ON_CLEARS)}, not {on_clear!r:.200}")
    if reuse not in REUSES:
        raise ValueError(f"reuse must be one of {', '.join(REUSES)}, not {reuse!r:.200}")
    if ledger_path is not None:
        if not durable:
            raise ValueError("ledger_path has no effect with durable=False, which remembers nothing: leave one out")
        if is_final(ledger_path):
            parse_output_path(ledger_path, "ledger_path")
    if reuse == "always":
        if not durable:
            raise ValueError("reuse='always' needs the ledger, and durable=False remembers nothing: leave one out")
        if output_path is None:
            raise ValueError("reuse='always' needs an output_path: without stored files, nothing is there to reuse")
        if on_clear != "reuse":
            raise ValueError(f"reuse='always' returns what is there, against on_clear={on_clear!r}: leave one out")
