"""A backend in Python (docs/examples/backend.py) behind a gateway that is told of it in its config file."""

import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import unittest

import grpc
from muster.offers.v1 import offers_pb2, offers_pb2_grpc
from muster.types.v1 import resources_pb2 as types_pb2

EXAMPLES = pathlib.Path(__file__).resolve().parent.parent.parent / "docs" / "examples"
GATEWAY = pathlib.Path(os.environ["MUSTER"]).parent / "offers-gateway"

CONFIG = """
[[backend]]
name = "lab"
kind = "grpc"
address = "http://127.0.0.1:{port}"
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@unittest.skipUnless(GATEWAY.exists(), f"SKIPPED: {GATEWAY} is not built")
class Backend(unittest.TestCase):
    def setUp(self):
        sys.path.insert(0, str(EXAMPLES))
        self.addCleanup(sys.path.remove, str(EXAMPLES))
        import backend

        self.backend = backend
        self.server, port = backend.serve("127.0.0.1:0")
        self.addCleanup(lambda: self.server.stop(None).wait())
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        config = pathlib.Path(folder.name) / "gateway.toml"
        config.write_text(CONFIG.format(port=port))
        address = f"127.0.0.1:{free_port()}"
        command = [str(GATEWAY), "--config", str(config), "--listen", address, "--ops-listen", "off"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        channel = grpc.insecure_channel(address)
        self.addCleanup(channel.close)
        grpc.channel_ready_future(channel).result(timeout=30)
        self.stub = offers_pb2_grpc.OffersServiceStub(channel)

    def offers(self):
        return self.stub.ListOffers(offers_pb2.ListOffersRequest(), timeout=20)

    def refresh(self) -> str:
        """Refreshes the backend; what went wrong, or nothing."""
        try:
            self.stub.RefreshBackend(offers_pb2.RefreshBackendRequest(name="lab", force=True), timeout=2)
        except grpc.RpcError as error:
            self.assertEqual(error.code(), grpc.StatusCode.UNAVAILABLE)
            return error.details()
        return ""

    def until(self, holds):
        """Waits until `holds()`: the backend has asked to be left alone for a second."""
        end = time.monotonic() + 30
        while not holds():
            self.assertLess(time.monotonic(), end, "not before long")
            time.sleep(0.1)

    def test_its_offers_are_listed_by_price_with_what_it_knows_of_capacity(self):
        answer = self.offers()
        ids = [offer.id for offer in answer.offers]
        self.assertEqual(
            ids,
            [
                "lab/basement/twin-3090/ondemand",
                "lab/basement/quad-a6000/ondemand",
                "lab/attic/octo-h100/ondemand",
            ],
        )
        self.assertEqual(answer.offers[0].availability, types_pb2.AVAILABILITY_AVAILABLE)
        self.assertEqual(answer.offers[2].availability, types_pb2.AVAILABILITY_NO_CAPACITY)
        # Whatever it calls them, accelerators go by one name.
        self.assertEqual([gpu.name for gpu in answer.offers[1].gpus], ["A6000"])
        self.assertEqual(answer.backends[0].kind, "grpc")

    def test_what_changes_is_seen_and_what_fails_is_told(self):
        self.assertEqual(len(self.offers().offers), 3)
        real = self.backend.machines
        self.addCleanup(setattr, self.backend, "machines", real)
        self.backend.machines = lambda: real()[:1]
        self.until(lambda: self.refresh() == "" and len(self.offers().offers) == 1)

        def broken():
            raise RuntimeError("the provider is down")

        self.backend.machines = broken
        self.until(lambda: "no answer in the time of this call" in self.refresh())
        self.assertEqual(len(self.offers().offers), 1, "the offers it had are shown")


if __name__ == "__main__":
    unittest.main()
