"""``@task.modelslab``: a function that returns what to generate becomes a task that generates it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

from airflow.providers.common.compat.sdk import (
    SET_DURING_EXECUTION,
    DecoratedOperator,
    context_merge,
    determine_kwargs,
    task_decorator_factory,
)

from airflow_provider_modelslab.exceptions import ModelsLabArgumentError
from airflow_provider_modelslab.operators import ModelsLabGenerateOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, TaskDecorator

__all__ = ["modelslab_task"]


class _ModelsLabDecoratedOperator(DecoratedOperator, ModelsLabGenerateOperator):
    """
    Generates what a function returns.

    The function is called once per try. Texts in what it returns are rendered as templates.

    :param python_callable: returns the payload, or the payloads of a batch as a list; may be ``async``.
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
        if inspect.isawaitable(returned):
            returned = asyncio.run(_result_of(returned))
        if isinstance(returned, (list, tuple)):
            self.payload, self.payloads = None, self.render_template(returned, context)
        elif isinstance(returned, Mapping):
            self.payload = self.render_template(dict(returned), context)
        else:
            raise ModelsLabArgumentError(
                "The function must return a dict of parameters (the payload), or a list of such dicts (the payloads), "
                f"not {type(returned).__name__}"
            )
        # Not DecoratedOperator's, which only splits dicts into several outputs, and in Airflow 3.0 fails at that.
        return ModelsLabGenerateOperator.execute(self, context)


async def _result_of(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def modelslab_task(
    python_callable: Callable[..., Any] | None = None, multiple_outputs: bool | None = None, **kwargs: Any
) -> TaskDecorator:
    """
    Turn a function that returns a payload, or a list of payloads, into a task that generates it.

    :param python_callable: the function.
    :param multiple_outputs: without effect, since the task returns a list: every task decorator takes it.
    :param kwargs: ``endpoint`` and all else that
        :class:`~airflow_provider_modelslab.operators.ModelsLabGenerateOperator` takes.
    """

    def decorate(function: Any) -> Any:
        return _override_without_multiple_outputs(
            task_decorator_factory(
                python_callable=function,
                multiple_outputs=False,
                decorated_operator_class=_ModelsLabDecoratedOperator,
                **kwargs,
            )
        )

    return cast("TaskDecorator", decorate if python_callable is None else decorate(python_callable))


def _override_without_multiple_outputs(decorated: Any) -> Any:
    """Let ``.override()`` take ``multiple_outputs``, too, with which Airflow's own one breaks the DAG."""
    override = decorated.override

    def override_others(*, multiple_outputs: bool | None = None, **arguments: Any) -> Any:
        return _override_without_multiple_outputs(override(**arguments))

    decorated.override = override_others
    return decorated
