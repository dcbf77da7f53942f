"""Two accepted images: the hosts of one are replaced by hosts of the other, and no request fails."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cloister.errors import AppraisalError, CloisterError
from support.host_process import HostProcess, client
from support.postgres import cluster
from support.waiting import until

BOTH = ("image-1", "image-2")


class Balancer:
    """Sends to the replicas that are ready, in turn, and to the next where one refuses to connect."""

    def __init__(self) -> None:
        self.urls: tuple[str, ...] = ()

    def transport(self) -> Any:
        return _Balanced(self)


class _Balanced:
    def __init__(self, balancer: Balancer) -> None:
        from cloister.transport.stdlib import HttpTransport

        self._balancer = balancer
        self._made = HttpTransport
        self._transports: dict[str, Any] = {}
        self._turn = 0

    def post(self, path: str, body: bytes, **how: Any) -> Any:
        from cloister.transport import TransportError

        failure: Exception = TransportError("no replica")
        urls = self._balancer.urls
        for _ in urls:
            self._turn += 1
            url = urls[self._turn % len(urls)]
            transport = self._transports.setdefault(url, self._made(url))
            try:
                return transport.post(path, body, **how)
            except TransportError as error:
                failure = error
        raise failure

    def close(self) -> None:
        for transport in self._transports.values():
            transport.close()


def kind(image: str) -> dict[str, Any]:
    return {"name": image, "format": "simulated", "measurements": {"measurement": image}, "minimum": {}}


@pytest.mark.slow
def test_a_rolling_upgrade_fails_no_request(tmp_path: Path) -> None:
    answered: list[int] = []
    failures: list[CloisterError] = []
    stop = threading.Event()
    with cluster() as postgresql, ExitStack() as stack:
        database = postgresql.database()
        old = [HostProcess(tmp_path, f"old-{n}", database=database) for n in range(2)]
        new = [HostProcess(tmp_path, f"new-{n}", database=database, image="image-2") for n in range(2)]
        key = old[0].initialize()
        for host in old:
            stack.callback(host.stop)
            host.start()
        balancer = Balancer()
        balancer.urls = tuple(host.url for host in old)

        def ask(number: int) -> None:
            with client(balancer.transport(), key, images=BOTH) as operator:
                while not stop.is_set():
                    try:
                        operator.call("tenant.list", {})
                    except CloisterError as error:
                        failures.append(error)
                        return
                    answered.append(number)

        def more(count: int) -> None:
            goal = len(answered) + count
            until(lambda: len(answered) >= goal or failures)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        try:
            more(5)
            with client(old[0].url, key, images=BOTH) as operator:
                operator.call("holder.add", kind("image-2"))
            more(5)
            for leaving, coming in zip(old, new, strict=True):
                stack.callback(coming.stop)
                coming.start()
                balancer.urls = (*balancer.urls, coming.url)
                more(5)
                # Out of the balancer first, as a readiness gate does it; then it drains.
                balancer.urls = tuple(url for url in balancer.urls if url != leaving.url)
                leaving.stop()
                more(5)
            with client(new[0].url, key, images=BOTH) as operator:
                operator.call("holder.remove", {"name": "first"})
            more(10)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert failures == []

        def accepted() -> bool:
            with client(new[1].url, key, images=("image-2",)) as strict:
                try:
                    strict.call("tenant.list", {})
                except AppraisalError:
                    return False
            return True

        # Within a second the other host knows it too, and clients of the new image alone are served.
        until(accepted)
