"""A backend of offers in Python: serves muster.backend.v1.BackendService from a list of machines.

To try it, with grpcio and grpcio-tools from PyPI:

    mkdir -p gen && python -m grpc_tools.protoc -Iproto --python_out=gen --grpc_python_out=gen \\
        $(find proto/muster -name '*.proto')
    PYTHONPATH=gen python docs/examples/backend.py 127.0.0.1:9000

and in the file that offers-gateway is given with --config:

    [[backend]]
    name = "lab"
    kind = "grpc"
    address = "http://127.0.0.1:9000"

A backend of your own replaces `machines()`: ask your provider there, and raise if it does not
answer. The gateway then goes on with the offers it had, and tells its callers why.
"""

import hashlib
import sys
from concurrent import futures

import grpc
from google.protobuf import duration_pb2
from muster.backend.v1 import backend_pb2, backend_pb2_grpc
from muster.types.v1 import resources_pb2

# Offers in one message. Any number does; a message has 4 MiB at most.
CHUNK = 100


def machines():
    """Each machine that could be had: region, name, GPU, how many, GPU memory in GiB, dollars an hour, free."""
    return [
        ("basement", "twin-3090", "RTX3090", 2, 24, 0.40, True),
        ("basement", "quad-a6000", "RTXA6000", 4, 48, 1.90, True),
        ("attic", "octo-h100", "H100", 8, 80, 16.00, False),
    ]


def offer(region, name, gpu, count, gib, dollars, free):
    """One machine in the words of the contract. What is left out is unknown."""
    return backend_pb2.BackendOffer(
        region=region,
        instance_type=name,
        capacity_type=resources_pb2.CAPACITY_TYPE_ON_DEMAND,
        gpus=[resources_pb2.GpuGroup(name=gpu, count=count, memory_mib=gib * 1024)],
        price=resources_pb2.Price(micro_usd_per_hour=round(dollars * 1_000_000)),
        availability=resources_pb2.AVAILABILITY_AVAILABLE if free else resources_pb2.AVAILABILITY_NO_CAPACITY,
    )


class Backend(backend_pb2_grpc.BackendServiceServicer):
    """Answers the gateway."""

    def DescribeBackend(self, request, context):
        return backend_pb2.DescribeBackendResponse(
            display_name="The lab",
            version="1.0",
            # Only a backend that knows what is free now may say AVAILABLE or NO_CAPACITY.
            live_capacity=True,
            # The gateway asks no more often than this.
            min_refresh_interval=duration_pb2.Duration(seconds=1),
        )

    def FetchOffers(self, request, context):
        known = machines()
        etag = hashlib.sha256(repr(known).encode()).hexdigest()
        if request.etag == etag:
            yield backend_pb2.FetchOffersResponse(not_modified=True)
            return
        offers = [offer(*machine) for machine in known]
        for start in range(0, len(offers), CHUNK):
            yield backend_pb2.FetchOffersResponse(offers=offers[start : start + CHUNK])
        yield backend_pb2.FetchOffersResponse(etag=etag)


def serve(address):
    """Serves at `address`; the server and the port it got."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    backend_pb2_grpc.add_BackendServiceServicer_to_server(Backend(), server)
    port = server.add_insecure_port(address)
    server.start()
    return server, port


if __name__ == "__main__":
    server, port = serve(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:9000")
    print(f"serving offers on port {port}", flush=True)
    server.wait_for_termination()
