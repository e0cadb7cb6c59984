"""The same as sync_client.py with grpcio's asyncio: calls side by side, and watches that are cancelled.

Against `muster up --workers 2 --gpus H100:8`, at the root of the repository:

    buf generate --template docs/clients/python.gen.yaml
    PYTHONPATH=gen/python python docs/clients/python/async_client.py
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable

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
    name="hello-asyncio",
    replicas=spec_pb2.ReplicaCount(min=1),
    run=spec_pb2.RunSpec(
        process=spec_pb2.ProcessRuntime(), command=["/bin/sh", "-c", "echo hello; exec sleep 3600"]
    ),
    resources=types_pb2.Requirements(gpu_any_of=[types_pb2.GpuRequest(names=["H100"])]),
    retry=spec_pb2.RetryPolicy(interval=duration_pb2.Duration(seconds=1)),
    stop=spec_pb2.StopPolicy(grace=duration_pb2.Duration(seconds=2)),
)


def say(words: str) -> None:
    print(words, flush=True)


def explain(error: grpc.aio.AioRpcError) -> str:
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


async def list_offers(offers: offers_pb2_grpc.OffersServiceStub) -> None:
    """Asks for two kinds at once."""

    async def cheapest(name: str) -> str:
        wanted = types_pb2.Requirements(gpu_any_of=[types_pb2.GpuRequest(names=[name])])
        request = offers_pb2.ListOffersRequest(filter=offers_pb2.OfferFilter(requirements=wanted), page_size=1)
        answer = await offers.ListOffers(request, timeout=TIMEOUT)
        [offer] = answer.offers
        return f"offer {offer.id} at ${offer.price.micro_usd_per_hour / 1e6:.2f} an hour"

    for line in await asyncio.gather(cheapest("H100"), cheapest("A100")):
        say(line)


async def too_late(offers: offers_pb2_grpc.OffersServiceStub) -> None:
    """A watch ends by its deadline alone, as a call does that takes too long."""
    try:
        async for _ in offers.WatchBackends(offers_pb2.WatchBackendsRequest(), timeout=0.2):
            pass
    except grpc.aio.AioRpcError as error:
        say(f"too late: {error.code().name}")


async def changes(open_watch: Callable, request) -> AsyncIterator:
    """Every change that a watch brings. A watch that breaks goes on where it was; one whose history is gone
    starts anew with what there is now. Whoever is refused for another reason hears of it."""
    delay = 0.1
    while True:
        # A server that goes away ends its watches.
        code = grpc.StatusCode.UNAVAILABLE
        watch = open_watch(request)
        try:
            async for message in watch:
                delay = 0.1
                if message.resume_token:
                    request.resume_token = message.resume_token
                for change in message.changes:
                    yield change
        except grpc.aio.AioRpcError as error:
            code = error.code()
            if code == grpc.StatusCode.OUT_OF_RANGE:
                request.resume_token = ""
            elif code not in BROKEN:
                raise
        finally:
            # Whoever has seen enough does not leave a stream open.
            watch.cancel()
        say(f"the watch broke ({code.name}), going on")
        await asyncio.sleep(delay)
        delay = min(delay * 2, 5)


async def watch_to_healthy(replicas: replicas_pb2_grpc.ReplicasServiceStub) -> None:
    request = replicas_pb2.WatchServicesRequest(filter=replicas_pb2.ServiceFilter(names=[SERVICE.name]))
    async for change in changes(replicas.WatchServices, request):
        status = change.put.status
        say(f"{SERVICE.name} is {resources_pb2.ServicePhase.Name(status.phase)}: {status.reason}")
        if status.phase == resources_pb2.SERVICE_PHASE_HEALTHY:
            return
        if status.phase == resources_pb2.SERVICE_PHASE_FAILED:
            raise SystemExit(f"{SERVICE.name} has failed: {status.reason}")


async def drain(workers: workers_pb2_grpc.WorkersServiceStub, name: str) -> None:
    await workers.DrainWorker(workers_pb2.DrainWorkerRequest(name=name, reason="an example"), timeout=TIMEOUT)
    request = workers_pb2.WatchWorkersRequest(filter=workers_pb2.WorkerFilter(names=[name]))
    async for change in changes(workers.WatchWorkers, request):
        worker = change.put if change.HasField("put") else change.observed
        say(f"{name} is {worker_pb2.WorkerState.Name(worker.state)}, {worker.drain.left} left")
        if worker.state == worker_pb2.WORKER_STATE_DISABLED:
            return


async def main() -> None:
    channel = grpc.aio.insecure_channel
    async with channel(OFFERS) as one, channel(WORKERS) as two, channel(REPLICAS) as three:
        offers = offers_pb2_grpc.OffersServiceStub(one)
        workers = workers_pb2_grpc.WorkersServiceStub(two)
        replicas = replicas_pb2_grpc.ReplicasServiceStub(three)

        await list_offers(offers)
        await too_late(offers)
        try:
            wrong = spec_pb2.ServiceSpec(name="Not A Name", replicas=spec_pb2.ReplicaCount(min=-1))
            await replicas.CreateService(replicas_pb2.CreateServiceRequest(spec=wrong), timeout=TIMEOUT)
        except grpc.aio.AioRpcError as error:
            say(f"refused: {explain(error)}")

        request = replicas_pb2.UpdateServiceRequest(
            spec=SERVICE, update_mask=FieldMask(paths=["*"]), allow_missing=True
        )
        answer = await replicas.UpdateService(request, timeout=TIMEOUT)
        say(f"applied {answer.service.name}")
        await watch_to_healthy(replicas)
        filter_ = replicas_pb2.ReplicaFilter(services=[SERVICE.name])
        listed = await replicas.ListReplicas(replicas_pb2.ListReplicasRequest(filter=filter_), timeout=TIMEOUT)
        worker = listed.replicas[0].attempt.worker
        await drain(workers, worker)
        await workers.EnableWorker(workers_pb2.EnableWorkerRequest(name=worker), timeout=TIMEOUT)
        await replicas.DeleteService(replicas_pb2.DeleteServiceRequest(name=SERVICE.name), timeout=TIMEOUT)
        say("done")


if __name__ == "__main__":
    asyncio.run(main())
