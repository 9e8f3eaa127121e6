"""Connections to Milvus: a server, or a database that is embedded in this process; and what their errors mean."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccan.errors import ConfigError, SearchError

if TYPE_CHECKING:
    from pymilvus import MilvusClient

TOKEN = "CCAN_MILVUS_TOKEN"
"""Environment variable with the server's token, `user:password` or an API key; never written anywhere."""
CONNECT_SECONDS, ANSWER_SECONDS = 5, 60
KEEPALIVE, NEVER = "grpc.keepalive_time_ms", 2**31 - 1


@dataclass(frozen=True)
class Place:
    """Where Milvus is: a server's address (`SearchConfig.uri`), or the file of an embedded one."""

    uri: str | None
    database: Path

    def __str__(self) -> str:
        return self.uri or str(self.database)


_embedded: Counter[str] = Counter()
_embedded_lock = threading.Lock()
"""Connections of this process to each embedded database: pymilvus serves them all from one, and does not count."""


def connect(place: Place) -> MilvusClient:
    """A connection. Raises: SearchError if there is no Milvus, ConfigError if pymilvus or milvus-lite is missing."""
    try:
        from pymilvus import MilvusClient
    except ImportError as error:
        raise ConfigError(
            "the engine milvus needs pymilvus and milvus-lite: pip install 'ccan[milvus]'"
        ) from error
    for name in ("pymilvus", "milvus_lite"):  # every error of theirs is told once, by `told`
        logging.getLogger(name).setLevel(logging.CRITICAL)
    token = os.environ.get(TOKEN, "") if place.uri else ""
    # The embedded edition ends a connection that asks every ten seconds whether it is still there, as the client does
    # by itself while an index is built: after four minutes that would be an error.
    options: dict[str, Any] = {} if place.uri else {"grpc_options": {KEEPALIVE: NEVER}}
    with told(place), nullcontext() if place.uri else _embedded_lock:
        try:
            client = MilvusClient(str(place), token=token, timeout=CONNECT_SECONDS, **options)
        except Exception as error:
            if place.uri is None:
                _explain(place, error)
            raise
        if place.uri is None:
            _embedded[str(place)] += 1
    return client


def disconnect(client: MilvusClient, place: Place) -> None:
    """End a connection, and with the last one the embedded database."""
    client.close()
    if place.uri is not None:
        return
    from milvus_lite import server_manager_instance

    with _embedded_lock:
        _embedded[str(place)] -= 1
        if _embedded[str(place)] <= 0:
            del _embedded[str(place)]
            server_manager_instance.release_server(str(place))


def _explain(place: Place, error: Exception) -> None:
    """Raises: SearchError with the cause why an embedded database does not open; pymilvus keeps it to itself."""
    try:
        from milvus_lite import DataDirLockedError, MilvusLite
    except ImportError as missing:
        raise ConfigError(
            "an embedded Milvus needs milvus-lite: pip install 'ccan[milvus]'"
        ) from missing
    try:
        MilvusLite(str(place)).close()
    except DataDirLockedError as locked:
        raise SearchError(
            f"{place}: in use by another process, and an embedded Milvus serves one at a time; end that one (a "
            "dashboard?), build with --engine exact, which any number may read, or use a Milvus server (--uri)"
        ) from locked
    except Exception as cause:
        raise SearchError(f"{place}: cannot be opened ({cause}); make the index anew") from error


@contextmanager
def told(place: Place) -> Iterator[None]:
    """What goes wrong in Milvus as one sentence of ours. Raises: SearchError."""
    from grpc import RpcError
    from pymilvus import MilvusException

    try:
        yield
    except (MilvusException, RpcError) as error:
        said = getattr(error, "message", None) or str(error)
        what = "is the server running, and the address right?" if place.uri else "is the disk full?"
        raise SearchError(f"{place}: Milvus failed: {said}; {what}") from error


def drop_collection(place: Place, collection: str) -> None:
    """Remove a collection and all that is in it. Raises: SearchError if Milvus does not answer."""
    client = connect(place)
    try:
        with told(place):
            client.drop_collection(collection, timeout=ANSWER_SECONDS)
    finally:
        disconnect(client, place)
