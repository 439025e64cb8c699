"""DAGs for the operator under ``dag.test()``: what needs Airflow's own machinery around it."""

from __future__ import annotations

import pendulum
from airflow.providers.common.compat.sdk import DAG, Asset, AssetAlias, task

from airflow_provider_modelslab.operators import ModelsLabGenerateOperator

START = pendulum.datetime(2026, 1, 1, tz="UTC")
PATH = "v6/images/text2img"

for name, deferrable in {"deferrable": True, "blocking": False}.items():
    with DAG(f"decorated_{name}", schedule=None, start_date=START, catchup=False, params={"many": False}) as dag:

        @task.modelslab(endpoint=PATH, deferrable=deferrable, poke_interval=0.2, timeout=600)
        def draw(animal, params=None):
            payload = {"prompt": f"a {animal}"}
            return [payload, {"prompt": f"two {animal}s"}] if params["many"] else payload

        @task
        def received(urls):
            return list(urls)

        received(draw("fox"))
    globals()[f"decorated_{name}"] = dag

with DAG("with_outlet", schedule=None, start_date=START, catchup=False) as with_outlet:
    ModelsLabGenerateOperator(
        task_id="draw",
        endpoint=PATH,
        payload={"prompt": "a harbour"},
        deferrable=True,
        poke_interval=0.2,
        timeout=600,
        outlets=[Asset("gallery"), AssetAlias("gallery_alias")],
    )

for name, deferrable in {"deferrable": True, "blocking": False}.items():
    with DAG(f"pictures_as_data_{name}", schedule=None, start_date=START, catchup=False) as dag:

        @task.modelslab(
            endpoint="v6/images/img2img", deferrable=deferrable, max_in_flight=1, poke_interval=0.2, timeout=600
        )
        def draw_over():
            picture = "data:image/png;base64," + "A" * 5_000_000
            return [{"prompt": "small"}, {"prompt": "large", "init_image": picture}]

        draw_over()
    globals()[f"pictures_as_data_{name}"] = dag

    for kept, output_path in {"stored": "{{ params.folder }}", "returned": None}.items():
        dag_id = f"outputs_as_data_{kept}_{name}"
        with DAG(dag_id, schedule=None, start_date=START, catchup=False, params={"folder": ""}) as dag:
            ModelsLabGenerateOperator(
                task_id="draw",
                endpoint=PATH,
                payload={"prompt": "x"},
                output_path=output_path,
                deferrable=deferrable,
                poke_interval=0.2,
                timeout=600,
                outlets=[Asset("pictures")],
            )
        globals()[dag_id] = dag

# What these templates give changes while the task is deferred.
with DAG("rendered_again", schedule=None, start_date=START, catchup=False) as rendered_again:
    ModelsLabGenerateOperator(
        task_id="draw",
        endpoint=PATH,
        payloads="{{ var.json.batch }}",
        max_in_flight=1,
        deferrable=True,
        poke_interval=0.2,
        timeout=600,
    )

with DAG("mapped_over_files", schedule=None, start_date=START, catchup=False, params={"folder": ""}):

    @task
    def prompts():
        return [{"prompt": "an owl"}, None, {"prompt": "a hare"}]

    @task
    def received_one(path):
        return path

    drawn = ModelsLabGenerateOperator.partial(
        task_id="draw_each", endpoint=PATH, deferrable=True, poke_interval=0.2, timeout=600
    ).expand(payload=prompts())

    batch = ModelsLabGenerateOperator(
        task_id="draw",
        endpoint=PATH,
        payloads=prompts.override(task_id="more_prompts")(),
        output_path="{{ params.folder }}",
        return_files=True,
        deferrable=True,
        poke_interval=0.2,
        timeout=600,
    )
    received_one.expand(path=batch.output)
