"""Docker."""

from __future__ import annotations

from ..errors import UnsupportedError
from .native import NativeBackend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from logging import Logger
    from typing import Any

__all__ = ["DockerBackend"]


class DockerBackend(NativeBackend):
    """Docker, found as its own command line finds it: ``DOCKER_HOST``, contexts, the usual sockets."""

    engine_name = "docker"

    def __init__(self, logger: Logger | None = None) -> None:
        super().__init__(logger=logger)
        #: Where Docker is, when that is not what its environment says.
        self.base_url: str | None = None
        self._client: Any = None

    @property
    def client(self) -> Any:
        """The client of the Docker SDK, for what podkit does not do; podkit does not use it itself.

        Raises:
            UnsupportedError: the package ``docker`` is not installed.
        """
        if self._client is None:
            try:
                import docker
            except ImportError as error:
                raise UnsupportedError(
                    "the client of the Docker SDK needs the package `docker`",
                    hint="install it with `pip install docker`",
                ) from error
            if self.base_url is None:
                self._client = docker.from_env()
            else:
                self._client = docker.DockerClient(base_url=self.base_url)
        return self._client

    @client.setter
    def client(self, value: Any) -> None:
        self._client = value
