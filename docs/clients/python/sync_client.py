"""A client of Muster with grpcio: offers, a service from its creation to HEALTHY, a drain, and what can go wrong.

Against `muster up --workers 2 --gpus H100:8`, at the root of the repository:

    buf generate --template docs/clients/python.gen.yaml
    PYTHONPATH=gen/python python docs/clients/python/sync_client.py
"""

import os
import time
from collections.abc import Callable, Iterator

import grpc
from google.protobuf import duration_pb2
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from muster.offers.v1 import offers_pb2, offers_pb2_grpc
from muster.replicas.v1 import replicas_pb2, replicas_pb2_grpc, resources_pb2, spec_pb2
from muster.types.v1 import resources_pb2 as types_pb2
from muster.workers.v1 import resources_pb2 as worker_pb2
from muster.workers.v1 import workers_pb2, workers_pb2_grpc

OFFERS = os.environ.get("OFFERS", "127.0.0.1:7400")
WORKERS = os.environ.get("WORKERS", "127.0.0.1:7401")
REPLICAS = os.environ.get("REPLICAS", "127.0.0.1:7402")

# A call without a deadline waits for as long as the server lets it.
TIMEOUT = 10

# Codes of a watch that broke, and may be opened again. A watcher that is too slow is cut off with the last.
BROKEN = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)

SERVICE = spec_pb2.ServiceSpec(
    name="hello-python",
    replicas=spec_pb2.ReplicaCount(min=1),
    run=spec_pb2.RunSpec(
        process=spec_pb2.ProcessRuntime(), command=["/bin/sh", "-c", "echo hello; exec sleep 3600"]
    ),
    resources=types_pb2.Requirements(gpu_any_of=[types_pb2.GpuRequest(names=["H100"])]),
    # With a retry policy a failed replica is restarted; without one the first failure ends the service.
    retry=spec_pb2.RetryPolicy(interval=duration_pb2.Duration(seconds=1)),
    stop=spec_pb2.StopPolicy(grace=duration_pb2.Duration(seconds=2)),
)


def say(words: str) -> None:
    print(words, flush=True)


def explain(error: grpc.RpcError) -> str:
    """What a server says of a failed call: the reason for programs, and each wrong field."""
    lines = [f"{error.code().name}: {error.details()}"]
    status = rpc_status.from_call(error)
    for detail in status.details if status else []:
        info, fields = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info):
            lines.append(f"reason {info.reason}")
        elif detail.Unpack(fields):
            lines += [f"{field.field}: {field.description}" for field in fields.field_violations]
    return "; ".join(lines)


def list_offers(offers: offers_pb2_grpc.OffersServiceStub) -> None:
    wanted = types_pb2.Requirements(gpu_any_of=[types_pb2.GpuRequest(names=["H100"])])
    request = offers_pb2.ListOffersRequest(filter=offers_pb2.OfferFilter(requirements=wanted), page_size=3)
    answer = offers.ListOffers(request, timeout=TIMEOUT)
    for offer in answer.offers:
        say(f"offer {offer.id} at ${offer.price.micro_usd_per_hour / 1e6:.2f} an hour")
    say(f"3 of {answer.total_size} offers, from {len(answer.backends)} backends")


def too_late(offers: offers_pb2_grpc.OffersServiceStub) -> None:
    """A watch ends by its deadline alone, as a call does that takes too long."""
    try:
        for _ in offers.WatchBackends(offers_pb2.WatchBackendsRequest(), timeout=0.2):
            pass
    except grpc.RpcError as error:
        say(f"too late: {error.code().name}")


def apply(replicas: replicas_pb2_grpc.ReplicasServiceStub) -> None:
    request = replicas_pb2.UpdateServiceRequest(
        spec=SERVICE, update_mask=FieldMask(paths=["*"]), allow_missing=True
    )
    answer = replicas.UpdateService(request, timeout=TIMEOUT)
    say(f"applied {answer.service.name}")


def changes(open_watch: Callable, request) -> Iterator:
    """Every change that a watch brings. A watch that breaks goes on where it was; one whose history is gone
    starts anew with what there is now. Whoever is refused for another reason hears of it."""
    delay = 0.1
    while True:
        try:
            for message in open_watch(request):
                delay = 0.1
                if message.resume_token:
                    request.resume_token = message.resume_token
                yield from message.changes
            # A server that goes away ends its watches.
            code = grpc.StatusCode.UNAVAILABLE
        except grpc.RpcError as error:
            code = error.code()
            if code == grpc.StatusCode.OUT_OF_RANGE:
                request.resume_token = ""
            elif code not in BROKEN:
                raise
        say(f"the watch broke ({code.name}), going on")
        time.sleep(delay)
        delay = min(delay * 2, 5)


def watch_to_healthy(replicas: replicas_pb2_grpc.ReplicasServiceStub) -> None:
    request = replicas_pb2.WatchServicesRequest(filter=replicas_pb2.ServiceFilter(names=[SERVICE.name]))
    for change in changes(replicas.WatchServices, request):
        status = change.put.status
        say(f"{SERVICE.name} is {resources_pb2.ServicePhase.Name(status.phase)}: {status.reason}")
        if status.phase == resources_pb2.SERVICE_PHASE_HEALTHY:
            return
        if status.phase == resources_pb2.SERVICE_PHASE_FAILED:
            raise SystemExit(f"{SERVICE.name} has failed: {status.reason}")


def drain(workers: workers_pb2_grpc.WorkersServiceStub, name: str) -> None:
    workers.DrainWorker(workers_pb2.DrainWorkerRequest(name=name, reason="an example"), timeout=TIMEOUT)
    request = workers_pb2.WatchWorkersRequest(filter=workers_pb2.WorkerFilter(names=[name]))
    for change in changes(workers.WatchWorkers, request):
        # What is only observed, such as a drain's progress, comes apart from what is stored.
        worker = change.put if change.HasField("put") else change.observed
        say(f"{name} is {worker_pb2.WorkerState.Name(worker.state)}, {worker.drain.left} left")
        if worker.state == worker_pb2.WORKER_STATE_DISABLED:
            return


def main() -> None:
    with grpc.insecure_channel(OFFERS) as one, grpc.insecure_channel(WORKERS) as two, grpc.insecure_channel(REPLICAS) as three:
        offers = offers_pb2_grpc.OffersServiceStub(one)
        workers = workers_pb2_grpc.WorkersServiceStub(two)
        replicas = replicas_pb2_grpc.ReplicasServiceStub(three)

        list_offers(offers)
        too_late(offers)
        try:
            wrong = spec_pb2.ServiceSpec(name="Not A Name", replicas=spec_pb2.ReplicaCount(min=-1))
            replicas.CreateService(replicas_pb2.CreateServiceRequest(spec=wrong), timeout=TIMEOUT)
        except grpc.RpcError as error:
            say(f"refused: {explain(error)}")

        apply(replicas)
        watch_to_healthy(replicas)
        [replica] = replicas.ListReplicas(
            replicas_pb2.ListReplicasRequest(filter=replicas_pb2.ReplicaFilter(services=[SERVICE.name])), timeout=TIMEOUT
        ).replicas
        drain(workers, replica.attempt.worker)
        workers.EnableWorker(workers_pb2.EnableWorkerRequest(name=replica.attempt.worker), timeout=TIMEOUT)
        replicas.DeleteService(replicas_pb2.DeleteServiceRequest(name=SERVICE.name), timeout=TIMEOUT)
        say("done")


if __name__ == "__main__":
    main()
