"""How a folder of a user's is opened, on any file system that Airflow's ``ObjectStoragePath`` reaches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_modelslab._protocol.arguments import parse_output_path
from airflow_provider_modelslab.exceptions import ModelsLabArgumentError, argument_errors

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl"})
"""
Protocols of fsspec whose files appear when their upload is completed, and not before, and whose
``pipe_file(mode="create")`` asks the server itself to refuse what is there already.
"""


@dataclass(frozen=True, slots=True)
class Folder:
    """
    A folder that has been opened; it need not be there.

    :param url: as the user names it.
    :param fs: its file system.
    :param path: how the file system names it, without a slash at the end.
    """

    url: str
    fs: AbstractFileSystem
    path: str

    @property
    def protocols(self) -> frozenset[str]:
        """How the file system is called, by all its names."""
        protocol = self.fs.protocol
        return frozenset({protocol} if isinstance(protocol, str) else protocol)

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine."""
        return "file" in self.protocols

    @property
    def is_object_store(self) -> bool:
        """Whether files appear whole, and whether the server refuses to create one that is there."""
        return not _OBJECT_STORES.isdisjoint(self.protocols)


def open_folder(url: str, argument: str, named: str = "") -> Folder:
    """
    Open a folder.

    :param url: a URL such as ``s3://aws_default@bucket/folder``, or an absolute path.
    :param argument: the argument that it comes from, for errors.
    :param named: how the user knows it, for errors; by default, the argument with its value.
    :raises ModelsLabArgumentError: it is no such thing, or its provider or connection is missing.
    """
    # Imported when files are read or written: parsing a DAG need not wait for fsspec.
    from airflow.providers.common.compat.sdk import AirflowNotFoundException, ObjectStoragePath

    with argument_errors():
        url = parse_output_path(url, argument)
    try:
        # The connection is looked up here, in the task's own thread: Airflow's supervisor is spoken to by one only.
        opened = ObjectStoragePath(url)
        fs: AbstractFileSystem = opened.fs
    except (ValueError, ImportError, AirflowNotFoundException) as error:
        raise ModelsLabArgumentError(
            f"Correct {named or f'{argument} {url!r:.200}'}, or add the provider or connection that it needs: {error}"
        ) from error
    return Folder(url, fs, str(fs._strip_protocol(opened.path)).rstrip("/"))
