"""What the programs of docs/clients do when a watch breaks, and when what they wait for does not come."""

import asyncio
import pathlib
import sys
import types
import unittest

import grpc

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "docs" / "clients" / "python"))

import async_client  # noqa: E402, it is found by the line above
import sync_client  # noqa: E402
from muster.replicas.v1 import replicas_pb2, resources_pb2  # noqa: E402

# A watcher that is too slow is cut off with the last of them.
PASSES = [
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
]


class Broken(grpc.RpcError):
    def __init__(self, code):
        super().__init__()
        self._code = code

    def code(self):
        return self._code


def phase_is(phase):
    """A message of a watch of services, in which one is in this phase."""
    service = resources_pb2.Service(name="hello", status=resources_pb2.ServiceStatus(phase=phase, reason="so it is"))
    change = resources_pb2.ServiceChange(put=service)
    return replicas_pb2.WatchServicesResponse(changes=[change], resume_token=f"after-{phase}")


class Watch:
    """Watches that each tell what is theirs and break: calls, from which tokens, are kept."""

    def __init__(self, code, *parts):
        self.code = code
        self.parts = list(parts)
        self.tokens = []

    def _next(self, request):
        self.tokens.append(request.resume_token)
        return self.parts.pop(0)

    def sync(self, request):
        yield self._next(request)
        raise Broken(self.code)

    def asyncio(self, request):
        message, code = self._next(request), self.code

        class Call:
            async def __aiter__(self):
                yield message
                raise grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata())

            def cancel(self):
                pass

        return Call()


class Watching(unittest.TestCase):
    def waits(self, *args):
        """Waits for HEALTHY with both clients: the tokens that each asked from, or the words that it ended with."""
        found = []
        for client, kind in ((sync_client, "sync"), (async_client, "asyncio")):
            watch = Watch(*args)
            stub = types.SimpleNamespace(WatchServices=getattr(watch, kind))
            try:
                waited = client.watch_to_healthy(stub)
                if kind == "asyncio":
                    asyncio.run(waited)
                found.append(watch.tokens)
            except SystemExit as end:
                found.append(str(end))
        return found

    def test_a_watch_that_breaks_goes_on_where_it_was(self):
        starting, healthy = resources_pb2.SERVICE_PHASE_STARTING, resources_pb2.SERVICE_PHASE_HEALTHY
        for code in PASSES:
            with self.subTest(code=code.name):
                tokens = ["", f"after-{starting}"]
                self.assertEqual(self.waits(code, phase_is(starting), phase_is(healthy)), [tokens, tokens])

    def test_what_has_failed_is_not_waited_for(self):
        for said in self.waits(grpc.StatusCode.UNAVAILABLE, phase_is(resources_pb2.SERVICE_PHASE_FAILED)):
            self.assertIn("so it is", said)


if __name__ == "__main__":
    unittest.main()
