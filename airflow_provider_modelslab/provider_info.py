"""
What Airflow is told about this provider, and the form of its connection type.

Plain data: Airflow loads it in every process. The form stands here once: Airflow from 3.2 on reads it as it is, for
earlier ones the hook translates it, and the reader of connections keeps to its limits.
"""

from __future__ import annotations

from typing import Any

CONNECTION_TYPE = "modelslab"

CONNECTION_FIELDS: dict[str, dict[str, Any]] = {
    "request_timeout": {
        "label": "Request timeout (seconds)",
        "description": "For one request and its whole reply. 30 when empty.",
        "schema": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 86400},
    },
    "retries": {
        "label": "Retries of a fetch",
        "description": "How many times a fetch that failed for a passing reason is repeated. 3 when empty.",
        "schema": {"type": ["integer", "null"], "minimum": 0, "maximum": 100},
    },
    "requests_per_second": {
        "label": "Requests per second",
        "description": "How many requests all waits of a triggerer may send together. 10 when empty.",
        "schema": {"type": ["number", "null"], "exclusiveMinimum": 0},
    },
    "ca_bundle": {
        "label": "CA bundle",
        "description": "PEM file with the certificate authorities to trust, on each machine, for a gateway or a proxy "
        "with a certificate of its own. The usual ones when empty.",
        "schema": {"type": ["string", "null"]},
    },
    "output_hosts": {
        "label": "Hosts of outputs",
        "description": "Hosts, separated by commas, from which outputs may be downloaded though their addresses are "
        "private: minio.internal, or 10.1.2.3:9000 for one port. The host above may always be.",
        "schema": {"type": ["string", "null"]},
    },
    "ledger_path": {
        "label": "Ledger of paid jobs",
        "description": "Folder in which operators remember what they have paid for, so that no retry and no clear pays "
        "again: a URL such as s3://aws_default@bucket/ledger, or an absolute path that all workers share.",
        "schema": {"type": ["string", "null"]},
    },
    "max_jobs_per_day": {
        "label": "Jobs per day",
        "description": "How many jobs operators may submit on a UTC day, counted in the ledger. Any number when empty.",
        "schema": {"type": ["integer", "null"], "minimum": 0},
    },
    "max_spending_per_day": {
        "label": "Spending per day (estimate)",
        "description": "For what amount operators may submit jobs on a UTC day, estimated by the prices below. Any "
        "amount when empty.",
        "schema": {"type": ["number", "null"], "minimum": 0},
    },
    "prices": {
        "label": "Prices",
        "description": 'What one job costs, by endpoint, as JSON: {"v6/images": 0.005, "v6/video": 0.2}.',
        "schema": {"type": ["string", "null"]},
    },
}

FIELD_BEHAVIOUR: dict[str, Any] = {
    "hidden-fields": ["schema", "login", "port", "extra"],
    "relabeling": {"password": "API key"},
    "placeholders": {"host": "leave empty for ModelsLab itself; http://127.0.0.1:8787 for a sandbox"},
}

_INTEGRATION = "ModelsLab"

_CONFIG: dict[str, Any] = {
    "modelslab": {
        "description": 'The page "Outputs", which shows in Airflow what ModelsLab has generated.',
        "options": {
            "media_roots": {
                "description": "Folders whose files the page may show to users who may read the XComs of the task "
                "that stored them: paths or URLs as they stand in ``output_path``, separated by commas.",
                "version_added": None,
                "type": "string",
                "example": "s3://aws_default@bucket/generated, /data/generated",
                "default": "",
            },
            "tab": {
                "description": "Show a tab on every task instance and DAG run of Airflow 3.1 to 3.3. Later ones show "
                "it on the tasks of ModelsLab and on DAGs with the tag modelslab, without this option.",
                "version_added": None,
                "type": "boolean",
                "example": None,
                "default": "False",
            },
        },
    },
}

_JOB_URIS: dict[str, Any] = {
    "schemes": ["modelslab"],
    "handler": None,
    "to_openlineage_converter": "airflow_provider_modelslab._telemetry.lineage.to_openlineage",
}


def provider_info() -> dict[str, Any]:
    """Return the provider's metadata as Airflow's ``provider_info`` schema describes it."""
    return {
        "package-name": "airflow-provider-modelslab",
        "name": "ModelsLab",
        "description": (  # Plain text: what releases of Airflow make of markup differs, and loses blanks.
            "Generate images, video, audio and 3D models with ModelsLab, and wait for them without holding a worker."
        ),
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://docs.modelslab.com",
                "tags": ["service"],
            }
        ],
        "hooks": [_modules("hooks")],
        "operators": [_modules("operators"), _modules("picking")],
        "sensors": [_modules("sensors")],
        "triggers": [_modules("triggers")],
        "task-decorators": [
            {"class-name": "airflow_provider_modelslab.decorators.modelslab_task", "name": "modelslab"},
        ],
        "extra-links": [
            "airflow_provider_modelslab.links.ModelsLabOutputLink",
            "airflow_provider_modelslab.links.ModelsLabOutputsLink",
        ],
        # Jobs as assets: where the lineage of stored files begins. Airflow 2 calls assets datasets.
        "asset-uris": [_JOB_URIS],
        "dataset-uris": [_JOB_URIS],
        "config": _CONFIG,
        "connection-types": [
            {
                "connection-type": CONNECTION_TYPE,
                "hook-class-name": "airflow_provider_modelslab.hooks.ModelsLabHook",
                "hook-name": "ModelsLab",
                "conn-fields": CONNECTION_FIELDS,
                "ui-field-behaviour": FIELD_BEHAVIOUR,
            }
        ],
    }


def _modules(name: str) -> dict[str, Any]:
    return {"integration-name": _INTEGRATION, "python-modules": [f"airflow_provider_modelslab.{name}"]}
