"""`cluster client` and `cluster key`: what programs from outside show, by gRPC and by HTTP."""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thunderline.cli.rotating import kept
from thunderline.cluster import NodeId, api_keys
from thunderline.cluster.certificates import CLIENT_NAME, domain
from thunderline.cluster.errors import InvalidRequest
from thunderline.process import authority
from thunderline.process.home import node_id, remembered_ports
from thunderline.process.settings import Settings


@dataclass(frozen=True, slots=True)
class Issued:
    path: Path
    name: str
    scheduler: NodeId
    host: str
    port: int

    @property
    def target(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def server_name(self) -> str:
        """Of the scheduler node's certificate: any other node that answers there only poses as it."""
        return domain(self.scheduler)

    def as_tree(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "file": str(self.path),
            "target": self.target,
            "server_name": self.server_name,
        }

    def lines(self) -> list[str]:
        target, pem, server = self.target, self.path, self.server_name
        return [
            f"{pem} holds the key and the certificate of {self.name}, and the cluster's authority: keep it secret",
            "",
            f"grpcurl -cacert {pem} -cert {pem} -key {pem} -authority {server} {target} list",
            "",
            "import pathlib, grpc",
            f'pem = pathlib.Path("{pem}").read_bytes()',
            "credentials = grpc.ssl_channel_credentials(pem, pem, pem)",
            f'options = [("grpc.ssl_target_name_override", "{server}")]',
            f'channel = grpc.secure_channel("{target}", credentials, options=options)',
        ]


def client(settings: Settings, name: str, out: Path | None, host: str, now_s: float) -> Issued:
    """A key and a certificate for a program. Raises InvalidRequest, CannotStart, OSError."""
    if not CLIENT_NAME.fullmatch(name):
        raise InvalidRequest(f"{name!r} is no name for a client: letters, digits, '.', '_' and '-'", param="name")
    one = authority.for_client(kept(settings), settings.cluster.name, name, now_s)
    path = (out or Path(f"{name}.pem")).expanduser()
    try:
        # Never another's file, and nobody reads it meanwhile.
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise InvalidRequest(f"{path} exists already: remove it, or choose another with --out") from None
    with os.fdopen(handle, "wb") as file:
        file.write(one.text)
    # Of the `up` that runs, which may have been given another than the settings say.
    port = remembered_ports(settings.home).get("scheduler", settings.scheduler.port)
    return Issued(path.absolute(), name, node_id(settings.home), host, port)


@dataclass(frozen=True, slots=True)
class NewKey:
    name: str
    key: str
    config: Path

    @property
    def digest(self) -> str:
        return api_keys.digest(self.key)

    def as_tree(self) -> dict[str, Any]:
        return {"name": self.name, "key": self.key, "digest": self.digest}

    def lines(self) -> list[str]:
        return [
            f"the API key of {self.name}; it is shown once, and kept nowhere:",
            "",
            self.key,
            "",
            f"write its digest into {self.config}, on every node whose gateway should take it, and restart that:",
            "",
            "[gateway]",
            f'api_keys = ["{self.digest}"]  # {self.name}',
        ]


def new_key(settings: Settings, name: str) -> NewKey:
    """Raises InvalidRequest."""
    if not CLIENT_NAME.fullmatch(name):
        raise InvalidRequest(f"{name!r} is no name for a key: letters, digits, '.', '_' and '-'", param="name")
    return NewKey(name, api_keys.written(secrets.token_bytes(api_keys.KEY_BYTES)), settings.home / "config.toml")
