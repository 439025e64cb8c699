"""Where receipts are kept: local folders, S3, a file system without exclusive creation, and Airflow's task states."""

from __future__ import annotations

import errno
import json
import resource
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_modelslab._ledger.receipts import progress_of
from airflow_provider_modelslab._ledger.stores import (
    RECORDS_PER_KEY,
    BothStores,
    FolderStore,
    ReceiptStore,
    TaskStateStore,
)
from airflow_provider_modelslab.exceptions import ModelsLabArgumentError, ModelsLabLedgerError
from tests.support.s3 import Bucket, serve_bucket
from tests.support.tasks import StateStore

try:
    from airflow.sdk.io import attach
except ImportError:  # Airflow 2
    from airflow.io.store import attach  # type: ignore[import-not-found, no-redef]

NAME = "dag/run/task/owl.0123456789abcdef.1.json"


@pytest.fixture(scope="module")
def server() -> Iterator[Bucket]:
    with serve_bucket() as bucket:
        yield bucket


@pytest.fixture(params=["local", "s3", "not exclusive", "task state"])
def store(request, tmp_path: Path, monkeypatch) -> Iterator[ReceiptStore]:
    if request.param == "task state":
        yield TaskStateStore(StateStore(), survives_clear=True)
    elif request.param == "s3":
        bucket = request.getfixturevalue("server")
        bucket.empty()
        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", bucket.connection)
        yield FolderStore("s3://aws_default@bucket/led/ger")
    elif request.param == "local":
        yield FolderStore(f"file://{tmp_path}/led ger")
    else:
        memory = MemoryFileSystem()
        attach("memory", fs=memory)
        yield FolderStore("memory:///ledger")
        memory.rm("/", recursive=True)


def test_what_is_kept_is_found_again(store: ReceiptStore):
    assert store.read_folder("dag/run/task") == store.read([NAME]) == {}
    assert store.create(NAME, {"a": 1})
    assert store.read([NAME, "dag/run/task/other.1.json"]) == {NAME: {"a": 1}}
    store.write({NAME: {"a": 2}, "dag/run/task/x.1.json": {"b": "ü"}})
    assert store.read_folder("dag/run/task") == {NAME: {"a": 2}, "dag/run/task/x.1.json": {"b": "ü"}}
    for _ in range(2):
        store.delete(NAME)
    assert store.read_folder("dag/run/task") == {"dag/run/task/x.1.json": {"b": "ü"}}


def test_only_one_of_two_is_kept(store: ReceiptStore):
    assert store.create(NAME, {"nonce": "a"})
    assert not store.create(NAME, {"nonce": "b"})
    assert store.read([NAME]) == {NAME: {"nonce": "a"}}


@pytest.mark.parametrize("store", ["local", "s3"], indirect=True)
def test_of_many_at_once_one_is_kept(store: FolderStore):
    kept: list[int] = []
    barrier = threading.Barrier(8)

    def create(number: int) -> None:
        barrier.wait()
        if store.create(NAME, {"nonce": number}):
            kept.append(number)

    threads = [threading.Thread(target=create, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.read([NAME]) == {NAME: {"nonce": kept[0]}}
    assert len(kept) == 1


@pytest.mark.parametrize("store", ["local", "s3", "not exclusive"], indirect=True)
def test_a_report_reads_the_whole_ledger(store: FolderStore):
    store.write({NAME: {"a": 1}, "_shared/ab/ab12.1.json": {"b": 2}})
    assert store.read_all() == {NAME: {"a": 1}, "_shared/ab/ab12.1.json": {"b": 2}}


def test_what_is_no_json_is_there_all_the_same(tmp_path: Path):
    file = tmp_path / NAME
    file.parent.mkdir(parents=True)
    file.write_text('{"half')
    (file.parent / "notes.txt").touch()
    assert FolderStore(str(tmp_path)).read_folder("dag/run/task") == {NAME: None}


@pytest.mark.parametrize("name", ["team [a]", "a*", "a?", "{a,b}"])
def test_the_name_of_the_folder_is_no_pattern(tmp_path: Path, name: str):
    for folder in (name, "ab", "team a"):
        FolderStore(str(tmp_path / folder)).write({NAME: {"folder": folder}})
    store = FolderStore(str(tmp_path / name))
    assert store.read([NAME]) == store.read_folder("dag/run/task") == store.read_all() == {NAME: {"folder": name}}
    assert store.read(["dag/run/task/other.1.json"]) == {}


def test_no_half_of_a_file_is_left(tmp_path: Path):
    store = FolderStore(str(tmp_path))
    store.write({NAME: {"a": 1}})
    with pytest.raises(ModelsLabLedgerError):
        store.write({NAME: {"a": object()}})
    assert [file.name for file in (tmp_path / NAME).parent.iterdir()] == [Path(NAME).name]


def test_a_full_disk_leaves_no_intent(tmp_path: Path):
    store = FolderStore(str(tmp_path))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with pytest.raises(ModelsLabLedgerError):
            store.create(NAME, {"a": 1})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert store.read_all() == {}
    assert store.create(NAME, {"a": 1})


def test_a_folder_that_does_not_work_is_named(tmp_path: Path):
    (tmp_path / "dag").touch()
    store = FolderStore(str(tmp_path))
    with pytest.raises(ModelsLabLedgerError, match=f"Correct ledger_path '{tmp_path}', or try again when it works: "):
        store.create(NAME, {})
    with pytest.raises(ModelsLabArgumentError, match="ledger_path must be a URL"):
        FolderStore("relative")
    with pytest.raises(
        ModelsLabArgumentError, match="Correct ledger_path 'nope://x', or add the provider or connection that it needs"
    ):
        FolderStore("nope://x")


class WithoutConditions(MemoryFileSystem):  # type: ignore[misc]
    """Answers as a server that speaks S3 and knows no conditional writes."""

    cachable = False

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        if mode == "create":
            raise OSError(errno.ENOSYS, "A header you provided implies functionality that is not implemented")
        super().pipe_file(path, value, mode, **kwargs)


def test_a_store_without_conditional_writes_is_looked_at_before_and_after():
    memory = WithoutConditions()
    attach("memory", fs=memory)
    store = FolderStore("memory:///ledger")
    assert store.create(NAME, {"nonce": "a"})
    assert not store.create(NAME, {"nonce": "b"})
    assert store.read([NAME]) == {NAME: {"nonce": "a"}}
    memory.rm("/", recursive=True)


class OldestFileSystem(MemoryFileSystem):  # type: ignore[misc]
    """Reads ranges as fsspec 2023.10 does, the oldest that Airflow allows: it takes one end for a list of starts."""

    cachable = False

    def cat_ranges(self, paths: list[str], starts: Any, ends: Any, **kwargs: Any) -> list[Any]:
        starts = starts if isinstance(starts, list) else [starts] * len(paths)
        ends = ends if isinstance(ends, list) else [starts] * len(paths)
        return super().cat_ranges(paths, starts, ends, **kwargs)


def test_records_are_read_by_the_oldest_fsspec_too():
    memory = OldestFileSystem()
    attach("memory", fs=memory)
    store = FolderStore("memory:///ledger")
    store.write({NAME: {"a": 1}})
    assert store.read([NAME]) == store.read_folder("dag/run/task") == {NAME: {"a": 1}}
    memory.rm("/", recursive=True)


class Unwritable(StateStore):
    def set(self, key: str, value: object) -> None:
        raise OSError("no route to the API server")


def test_of_two_stores_both_keep_an_intent_or_none(tmp_path: Path):
    folder = FolderStore(str(tmp_path))
    both = BothStores(folder, TaskStateStore(Unwritable(), survives_clear=True), progress_of)
    with pytest.raises(ModelsLabLedgerError):
        both.create(NAME, {"nonce": "a"})
    assert folder.read_all() == {}


def test_of_two_stores_the_one_that_is_further_counts(tmp_path: Path):
    folder, state = FolderStore(str(tmp_path)), TaskStateStore(StateStore(), survives_clear=True)
    both = BothStores(folder, state, progress_of)
    job = {"id": "7", "endpoint": "v6/images"}
    assert both.create(NAME, {"state": "intended"})
    state.write({NAME: {"state": "submitted", "job": job}})
    assert both.read([NAME])[NAME]["state"] == "submitted"
    folder.write({NAME: {"state": "succeeded", "job": job}})
    assert both.read_folder("dag/run/task")[NAME]["state"] == "succeeded"


def test_task_states_stay_short_values():
    state = StateStore()
    store = TaskStateStore(state, survives_clear=True)
    for number in range(2 * RECORDS_PER_KEY + 1):
        store.create(f"{number}.1.json", {"outputs": ["A" * 100_000]})
    assert len(state.texts) == 3
    assert max(map(len, state.texts.values())) < 20_000
    store.delete("3.1.json")
    store.create("new.1.json", {})
    assert len(state.texts) == 3
    again: Any = TaskStateStore(state, survives_clear=True).read_folder("")
    assert json.dumps(again, sort_keys=True) == json.dumps(store.read_folder(""), sort_keys=True)
    assert len(again) == 2 * RECORDS_PER_KEY + 1
