from __future__ import annotations

import copy
import json
import pickle
from dataclasses import FrozenInstanceError, asdict, replace

import pytest

from airflow_provider_modelslab.jobs import Job

JOB = Job("147", "v6/video", eta=2.5, outputs=["https://cdn/a"], meta={"prompt": "a fox", "seeds": [1, 2]})


def test_a_job_is_its_record():
    assert JOB == JOB.to_dict() == dict(JOB) == asdict(JOB) == json.loads(json.dumps(JOB))
    assert JOB["outputs"] is JOB.outputs
    assert Job.from_dict(JOB.to_dict()) == JOB
    assert type(JOB.to_dict()) is dict


def test_a_changed_copy_has_a_changed_record():
    done = replace(JOB, status="success")
    assert (done["status"], done.status, JOB["status"]) == ("success", "success", "processing")
    with pytest.raises(FrozenInstanceError):
        JOB.status = "success"  # type: ignore[misc]


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda job: pickle.loads(pickle.dumps(job))])
def test_copies_are_jobs(duplicate):
    copied = duplicate(JOB)
    assert copied == JOB
    assert type(copied) is Job
    assert copied.outputs == copied["outputs"] == JOB.outputs
