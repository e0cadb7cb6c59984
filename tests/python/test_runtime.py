"""What every component has, as a client in another language sees it: deadlines, and health in full."""

import unittest

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from muster.offers.v1 import offers_pb2, offers_pb2_grpc
from muster.replicas.v1 import replicas_pb2, replicas_pb2_grpc
from muster.workers.v1 import workers_pb2, workers_pb2_grpc

SERVING = health_pb2.HealthCheckResponse.SERVING

# Each component with the name of its service, its port for calls, and the one for health and metrics.
COMPONENTS = {
    "muster.offers.v1.OffersService": ("127.0.0.1:7400", "127.0.0.1:7410"),
    "muster.workers.v1.WorkersService": ("127.0.0.1:7401", "127.0.0.1:7411"),
    "muster.replicas.v1.ReplicasService": ("127.0.0.1:7402", "127.0.0.1:7412"),
    "muster.agents.v1.AgentsService": ("127.0.0.1:7403", "127.0.0.1:7413"),
}


def statuses(answer: bytes) -> dict:
    """Reads HealthListResponse, which the package does not know: a map from names to responses."""
    found = {}
    at = 0
    while at < len(answer):
        assert answer[at] == 0x0A, "field 1, a message"
        end = at + 2 + answer[at + 1]
        entry = answer[at + 2 : end]
        name_end = 2 + entry[1]
        name = entry[2:name_end].decode() if entry[0] == 0x0A else ""
        value = entry[name_end + 2 :] if entry[0] == 0x0A else entry[2:]
        found[name] = health_pb2.HealthCheckResponse.FromString(value).status
        at = end
    return found


class Deadlines(unittest.TestCase):
    def test_a_thousand_calls_of_five_milliseconds_are_ok_or_out_of_time(self):
        calls = [
            ("127.0.0.1:7400", offers_pb2_grpc.OffersServiceStub, "ListOffers", offers_pb2.ListOffersRequest(page_size=1000)),
            ("127.0.0.1:7401", workers_pb2_grpc.WorkersServiceStub, "ListWorkers", workers_pb2.ListWorkersRequest()),
            ("127.0.0.1:7402", replicas_pb2_grpc.ReplicasServiceStub, "ListServices", replicas_pb2.ListServicesRequest()),
            ("127.0.0.1:7402", replicas_pb2_grpc.ReplicasServiceStub, "ListEvents", replicas_pb2.ListEventsRequest()),
        ]
        codes = {}
        for address, stub, method, request in calls:
            with grpc.insecure_channel(address) as channel:
                grpc.channel_ready_future(channel).result(timeout=10)
                call = getattr(stub(channel), method)
                # Side by side, so that many are late.
                for future in [call.future(request, timeout=0.005) for _ in range(250)]:
                    code = future.code()
                    codes[code] = codes.get(code, 0) + 1
        self.assertEqual(sum(codes.values()), 1000)
        allowed = {grpc.StatusCode.OK, grpc.StatusCode.DEADLINE_EXCEEDED}
        self.assertLessEqual(set(codes), allowed, codes)
        print(codes)


class Health(unittest.TestCase):
    def ports(self):
        """Every port that serves health, with its component's service."""
        for service, addresses in COMPONENTS.items():
            for address in addresses:
                with grpc.insecure_channel(address) as channel:
                    yield service, channel

    def test_check_on_both_ports(self):
        for service, channel in self.ports():
            stub = health_pb2_grpc.HealthStub(channel)
            for name in ["", "readiness", "liveness", service]:
                answer = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
                self.assertEqual(answer.status, SERVING, name)
            with self.assertRaises(grpc.RpcError) as caught:
                stub.Check(health_pb2.HealthCheckRequest(service="no.such.Service"), timeout=5)
            self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)

    def test_watch_on_both_ports_says_each_status_once_and_stays_open(self):
        for service, channel in self.ports():
            stub = health_pb2_grpc.HealthStub(channel)
            expected = {service: SERVING, "no.such.Service": health_pb2.HealthCheckResponse.SERVICE_UNKNOWN}
            for name, status in expected.items():
                watch = stub.Watch(health_pb2.HealthCheckRequest(service=name), timeout=0.5)
                seen = []
                with self.assertRaises(grpc.RpcError) as caught:
                    for answer in watch:
                        seen.append(answer.status)
                self.assertEqual(seen, [status], name)
                self.assertEqual(caught.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED, name)

    def test_list_on_both_ports(self):
        for service, channel in self.ports():
            listing = channel.unary_unary("/grpc.health.v1.Health/List")
            found = statuses(listing(b"", timeout=5))
            self.assertLessEqual({"", "readiness", "liveness", service}, set(found))
            self.assertEqual(set(found.values()), {SERVING})
