"""``@task.modelslab``: a function that returns what to generate becomes a task that generates it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import (
    SET_DURING_EXECUTION,
    DecoratedOperator,
    context_merge,
    determine_kwargs,
    task_decorator_factory,
)

from airflow_provider_modelslab.operators import ModelsLabGenerateOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, TaskDecorator

__all__ = ["modelslab_task"]

RETURNED_KEY = "returned"
"""The XCom key of what the function returned: it is called once per try, not again when a deferred task resumes."""


class _ModelsLabDecoratedOperator(DecoratedOperator, ModelsLabGenerateOperator):
    """
    Generates what a function returns.

    :param python_callable: returns the payload, or the payloads of a batch as a list.
    :param op_args: its positional arguments.
    :param op_kwargs: its keyword arguments.
    :param kwargs: all that :class:`~airflow_provider_modelslab.operators.ModelsLabGenerateOperator` takes.
    """

    template_fields: Sequence[str] = (*DecoratedOperator.template_fields, *ModelsLabGenerateOperator.template_fields)
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **ModelsLabGenerateOperator.template_fields_renderers,
    }
    custom_operator_name = "@task.modelslab"

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        # The function may be annotated with "-> dict", but what the task returns is a list of URLs.
        kwargs["multiple_outputs"] = False
        super().__init__(
            python_callable=python_callable,
            op_args=op_args,
            op_kwargs=op_kwargs,
            payload=SET_DURING_EXECUTION,
            **kwargs,
        )

    def execute(self, context: Context) -> Any:
        """Call the function and generate what it returns."""
        context_merge(context, self.op_kwargs)
        returned = self.python_callable(*self.op_args, **determine_kwargs(self.python_callable, self.op_args, context))
        context["ti"].xcom_push(key=RETURNED_KEY, value=returned)
        self._take(returned)
        # Not DecoratedOperator's, which only splits dicts into several outputs, and in Airflow 3.0 fails at that.
        return ModelsLabGenerateOperator.execute(self, context)

    def execute_complete(self, context: Context, event: Mapping[str, Any] | None = None) -> Any:
        """Take the trigger's event."""
        ti = context["ti"]
        self._take(ti.xcom_pull(task_ids=ti.task_id, key=RETURNED_KEY, map_indexes=ti.map_index))
        return super().execute_complete(context, event)

    def _take(self, returned: Any) -> None:
        if isinstance(returned, (list, tuple)):
            self.payload, self.payloads = None, returned
        else:
            self.payload = returned


def modelslab_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """
    Turn a function that returns a payload, or a list of payloads, into a task that generates it.

    :param python_callable: the function.
    :param kwargs: ``endpoint`` and all else that
        :class:`~airflow_provider_modelslab.operators.ModelsLabGenerateOperator` takes.
    """
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=False,
        decorated_operator_class=_ModelsLabDecoratedOperator,
        **kwargs,
    )
