"""Generates a client from the contract, starts `muster up`, and runs the tests of this folder.

Usage: run.py PATH-OF-MUSTER
"""

import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import unittest

import grpc
import grpc_tools
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_tools import protoc

HERE = pathlib.Path(__file__).resolve().parent
PROTO = HERE.parent.parent / "proto"
ADDRESSES = ["127.0.0.1:7400", "127.0.0.1:7401", "127.0.0.1:7402"]


def generate(out: pathlib.Path) -> None:
    """Generates the client's modules into `out`."""
    files = sorted(str(path) for path in (PROTO / "muster").rglob("*.proto"))
    # The well-known types come with the generator.
    known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    paths = [f"-I{PROTO}", f"-I{known}", f"--python_out={out}", f"--grpc_python_out={out}"]
    code = protoc.main(["protoc", *paths, *files])
    if code != 0:
        raise SystemExit(f"protoc ended with {code}")


def wait_serving(address: str, process: subprocess.Popen, seconds: float) -> None:
    """Waits until the server at `address` is SERVING."""
    with grpc.insecure_channel(address) as channel:
        call = health_pb2_grpc.HealthStub(channel).Check
        for _ in range(int(seconds * 10)):
            if process.poll() is not None:
                raise SystemExit(f"muster up ended with {process.returncode}")
            try:
                request = health_pb2.HealthCheckRequest()
                answer = call(request, timeout=0.1, wait_for_ready=True)
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
            except grpc.RpcError:
                pass
    raise SystemExit(f"{address} was not SERVING after {seconds} s")


def main() -> int:
    muster = pathlib.Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "gen"
        out.mkdir()
        generate(out)
        sys.path[:0] = [str(out), str(HERE)]
        os.environ["MUSTER"] = str(muster)
        command = [str(muster), "up", "--data", f"{folder}/data", "--workers", "2"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            for address in ADDRESSES:
                wait_serving(address, process, 20)
            result = unittest.TextTestRunner(verbosity=2).run(unittest.defaultTestLoader.discover(str(HERE)))
        finally:
            process.send_signal(signal.SIGINT)
            try:
                code = process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                raise SystemExit("muster up did not stop within 30 s") from None
        if code != 0:
            raise SystemExit(f"muster up ended with {code}")
        failed = len(result.failures) + len(result.errors)
        print(f"{result.testsRun - failed} passed, {failed} failed")
        return 0 if result.wasSuccessful() and result.testsRun else 1


if __name__ == "__main__":
    sys.exit(main())
