"""A client of Muster in another language: offers, a service from its creation to its end, errors, health."""

import time
import unittest

import grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from muster.offers.v1 import offers_pb2, offers_pb2_grpc
from muster.replicas.v1 import replicas_pb2, replicas_pb2_grpc, resources_pb2, spec_pb2
from muster.types.v1 import resources_pb2 as types_pb2
from muster.workers.v1 import workers_pb2, workers_pb2_grpc

GATEWAY = "127.0.0.1:7400"
REGISTRY = "127.0.0.1:7401"
MANAGER = "127.0.0.1:7402"


def reason(error: grpc.RpcError) -> str:
    """The reason in the ErrorInfo of a failed call."""
    status = rpc_status.from_call(error)
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            assert info.domain == "muster.dev"
            return info.reason
    return ""


def service(name: str, replicas: int) -> spec_pb2.ServiceSpec:
    """A service of processes that sleep."""
    return spec_pb2.ServiceSpec(
        name=name,
        replicas=spec_pb2.ReplicaCount(min=replicas),
        run=spec_pb2.RunSpec(process=spec_pb2.ProcessRuntime(), command=["/bin/sh", "-c", "exec sleep 600"]),
        retry=spec_pb2.RetryPolicy(),
    )


class Offers(unittest.TestCase):
    def setUp(self):
        self.channel = grpc.insecure_channel(GATEWAY)
        self.addCleanup(self.channel.close)
        self.stub = offers_pb2_grpc.OffersServiceStub(self.channel)

    def test_lists_in_order_of_price_with_a_report_of_each_backend(self):
        wanted = types_pb2.Requirements(gpu_any_of=[types_pb2.GpuRequest(names=["H100"])])
        filter_ = offers_pb2.OfferFilter(requirements=wanted)
        answer = self.stub.ListOffers(offers_pb2.ListOffersRequest(filter=filter_, page_size=10), timeout=5)
        self.assertGreater(len(answer.offers), 0)
        self.assertGreater(len(answer.backends), 5)
        prices = [offer.price.micro_usd_per_hour for offer in answer.offers]
        self.assertEqual(prices, sorted(prices))
        for offer in answer.offers:
            self.assertEqual({gpu.name for gpu in offer.gpus}, {"H100"})
            self.assertNotEqual(offer.availability, types_pb2.AVAILABILITY_AVAILABLE)

    def test_pages_join_to_the_whole(self):
        request = offers_pb2.ListOffersRequest(page_size=37)
        ids = []
        while True:
            answer = self.stub.ListOffers(request, timeout=5)
            ids += [offer.id for offer in answer.offers]
            if not answer.next_page_token:
                break
            request.page_token = answer.next_page_token
        self.assertEqual(len(ids), answer.total_size)
        self.assertEqual(len(ids), len(set(ids)))

    def test_a_foreign_page_token_is_refused(self):
        with self.assertRaises(grpc.RpcError) as caught:
            self.stub.ListOffers(offers_pb2.ListOffersRequest(page_token="bm9uc2Vuc2U"), timeout=5)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        self.assertEqual(reason(caught.exception), "PAGE_TOKEN_MISMATCH")


class Services(unittest.TestCase):
    def setUp(self):
        self.channel = grpc.insecure_channel(MANAGER)
        self.addCleanup(self.channel.close)
        self.stub = replicas_pb2_grpc.ReplicasServiceStub(self.channel)

    def test_a_service_is_created_watched_to_healthy_and_deleted(self):
        spec = service("from-python", 2)
        created = self.stub.CreateService(replicas_pb2.CreateServiceRequest(spec=spec, request_id="py-1"), timeout=5)
        again = self.stub.CreateService(replicas_pb2.CreateServiceRequest(spec=spec, request_id="py-1"), timeout=5)
        self.assertEqual(created.service.uid, again.service.uid)
        self.assertEqual(created.service.status.failure_mode, resources_pb2.FAILURE_MODE_RETRY)
        self.watch_until(lambda change: change.put.status.phase == resources_pb2.SERVICE_PHASE_HEALTHY)
        replicas = self.stub.ListReplicas(replicas_pb2.ListReplicasRequest(), timeout=5).replicas
        ready = [replica for replica in replicas if replica.service == "from-python"]
        self.assertEqual([replica.phase for replica in ready], [resources_pb2.REPLICA_PHASE_READY] * 2)
        self.stub.DeleteService(replicas_pb2.DeleteServiceRequest(name="from-python"), timeout=5)
        self.gone("from-python")

    def watch_until(self, met):
        """Watches the service until a change meets `met`."""
        filter_ = replicas_pb2.ServiceFilter(names=["from-python"])
        watch = self.stub.WatchServices(replicas_pb2.WatchServicesRequest(filter=filter_), timeout=30)
        for message in watch:
            if any(met(change) for change in message.changes):
                watch.cancel()
                return
        self.fail("the watch ended")

    def gone(self, name: str):
        """Waits until there is no such service."""
        for _ in range(300):
            try:
                self.stub.GetService(replicas_pb2.GetServiceRequest(name=name), timeout=5)
            except grpc.RpcError as error:
                self.assertEqual(error.code(), grpc.StatusCode.NOT_FOUND)
                self.assertEqual(reason(error), "RESOURCE_NOT_FOUND")
                return
            time.sleep(0.1)
        self.fail(f"{name} is still there")

    def test_every_wrong_field_is_named(self):
        spec = spec_pb2.ServiceSpec(name="Not A Name", replicas=spec_pb2.ReplicaCount(min=-1))
        with self.assertRaises(grpc.RpcError) as caught:
            self.stub.CreateService(replicas_pb2.CreateServiceRequest(spec=spec), timeout=5)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        fields = set()
        for detail in rpc_status.from_call(caught.exception).details:
            bad = error_details_pb2.BadRequest()
            if detail.Unpack(bad):
                fields |= {violation.field for violation in bad.field_violations}
        self.assertLessEqual({"spec.name", "spec.replicas.min", "spec.run"}, fields)

    def test_a_short_deadline_is_a_deadline(self):
        codes = set()
        for _ in range(200):
            try:
                self.stub.ListServices(replicas_pb2.ListServicesRequest(), timeout=0.0005)
                codes.add(grpc.StatusCode.OK)
            except grpc.RpcError as error:
                codes.add(error.code())
        self.assertLessEqual(codes, {grpc.StatusCode.OK, grpc.StatusCode.DEADLINE_EXCEEDED})


class Workers(unittest.TestCase):
    def test_two_workers_are_active(self):
        with grpc.insecure_channel(REGISTRY) as channel:
            stub = workers_pb2_grpc.WorkersServiceStub(channel)
            for _ in range(100):
                workers = stub.ListWorkers(workers_pb2.ListWorkersRequest(), timeout=5).workers
                states = [worker.state for worker in workers]
                if states == [2, 2]:
                    return
                time.sleep(0.1)
            self.fail(f"the workers' states are {states}")


class Health(unittest.TestCase):
    def test_every_component_is_serving_by_every_name(self):
        names = {GATEWAY: "muster.offers.v1.OffersService", REGISTRY: "muster.workers.v1.WorkersService"}
        names[MANAGER] = "muster.replicas.v1.ReplicasService"
        for address, name in names.items():
            with grpc.insecure_channel(address) as channel:
                stub = health_pb2_grpc.HealthStub(channel)
                for asked in ["", "readiness", "liveness", name]:
                    answer = stub.Check(health_pb2.HealthCheckRequest(service=asked), timeout=5)
                    self.assertEqual(answer.status, health_pb2.HealthCheckResponse.SERVING, f"{address} {asked}")

    def test_an_unknown_service_is_not_found_by_check_and_unknown_by_watch(self):
        with grpc.insecure_channel(MANAGER) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest(service="no.such.Service")
            with self.assertRaises(grpc.RpcError) as caught:
                stub.Check(request, timeout=5)
            self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)
            watch = stub.Watch(request, timeout=5)
            self.assertEqual(next(watch).status, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
            watch.cancel()
