"""What the reference says in words that stand nowhere else. Whatever is missing or too much here is an error."""

EVENTS = {
    "AcceleratorsFound": "a worker has accelerators that it did not have before",
    "AcceleratorsGone": "a worker no longer has accelerators that it had, or cannot use them",
    "AllocationRevoked": "room was taken back on a worker that was lost or disabled by force",
    "DrainChanged": "a drain got other terms",
    "DrainForced": "a drain's deadline has passed: what is left is stopped",
    "ReplicaBackoff": "a replica waits to be tried again",
    "ReplicaCreated": "a replica is wanted that was not before",
    "ReplicaFailed": "an attempt to run a replica has failed; the class and the exit are in its attributes",
    "ReplicaGaveUp": "a replica has used up its retries",
    "ReplicaPlaced": "a replica has room on a worker",
    "ReplicaPromoted": "a spare or a replacement counts among the wanted now",
    "ReplicaReady": "a replica is ready",
    "ReplicaRemoved": "a replica is no longer wanted and is gone",
    "ReplicaStopped": "a replica has stopped as it was told to",
    "ReplicaStopping": "a replica is being stopped, and why",
    "ReplicaUnreachable": "a replica's worker is not heard",
    "ReplicaUnready": "a replica that was ready no longer is",
    "ReplicaWaitsForPlace": "no worker has room for a replica now",
    "ServiceAutoscaled": "the load asks for another number of replicas",
    "ServiceCreated": "a service was created",
    "ServiceDegraded": "fewer replicas are ready than wanted",
    "ServiceDeleting": "a service is stopped and will be forgotten",
    "ServiceDown": "fewer replicas are ready than min_healthy: an outage",
    "ServiceFailed": "a service has failed and is not tried again",
    "ServiceHealthy": "as many replicas are ready as are wanted",
    "ServiceRestarted": "every replica is replaced, one after the other",
    "ServiceScaled": "somebody asked for another number of replicas",
    "ServiceStarted": "a service is to run",
    "ServiceStarting": "a service starts",
    "ServiceStopped": "nothing of a service runs any more",
    "ServiceStopping": "a service is to stop",
    "ServiceUpdated": "a new version of the spec was applied",
    "UpdateComplete": "every replica runs the new version",
    "UpdatePaused": "an update waits: the new version finds no place, or was interrupted",
    "UpdateRolledBack": "every replica runs the old version again",
    "UpdateRollingBack": "the new version has failed: the old one is put back",
    "UpdateStarted": "replicas of the old version are being replaced",
    "WorkerActivated": "a worker has passed its checks and takes work",
    "WorkerCreated": "a join token awaits a worker of this name",
    "WorkerDeleted": "a worker was deleted",
    "WorkerDisabled": "a worker is empty and out of use",
    "WorkerDraining": "a worker is being emptied",
    "WorkerEnabled": "a worker was put back, and proves itself again",
    "WorkerFenced": "what stops without us on a lost worker has stopped",
    "WorkerForceDisabled": "a worker was put out of use though it was not known to be empty",
    "WorkerLeft": "a worker's agent has said goodbye",
    "WorkerLost": "a worker was not heard for longer than lost_after",
    "WorkerRegistered": "a worker's agent has registered, for the first time or again",
    "WorkerResumed": "a drain was called off",
    "WorkerReturned": "a lost worker is heard again",
}

CHECKS = {
    "checks": "each check, in order of name",
    "checks[].name": "its name, such as `store`",
    "checks[].tier": "`core`: without it the component is not ready; `auxiliary`: without it the component is degraded",
    "checks[].status": "`pending`, `ok`, `failed` or `stuck`",
    "checks[].since": "since when it finds that",
    "checks[].detail": "the same in words",
}

HEALTH = {
    "intro": """Each component answers on its gRPC port by the standard health protocol (`grpc.health.v1.Health`: Check, List and
Watch), without certificate or token, and on its ops port by the same protocol in plaintext, and over HTTP.

| gRPC service name | SERVING while |
|---|---|
| empty, `readiness` | it takes traffic |
| `liveness` | its process makes progress; also while it is busy, draining or in maintenance |
| `muster.workers.v1.WorkersService` and each other service that it serves | it takes traffic |

Check of another name is NOT_FOUND; Watch of one says SERVICE_UNKNOWN and stays open.

| HTTP path | is |
|---|---|
| `/livez` | 200 while the process makes progress, else 503 |
| `/readyz`, also `/health` and `/ready` | 200 while it takes traffic, else 503; always JSON |
| `/metrics` | for Prometheus, in OpenMetrics |
| `/version` | what runs |
""",
    "/livez": {
        "intro": "Only the event loop is asked.\n",
        "keys": {
            "status": "`live` or `stalled`",
            "component": "which component it is",
            "uptime_seconds": "since its start",
            **CHECKS,
        },
    },
    "/readyz": {
        "intro": "Everything that bears on readiness, and what is degraded beside it.\n",
        "keys": {
            "status": "`ready`, `degraded` (still 200), or why not",
            "component": "which component it is",
            "version": "its version",
            "instance": "random for each start",
            "uptime_seconds": "since its start",
            "in_flight": "calls and streams that run",
            "vital_in_flight": "the same in the lane that heartbeats have for themselves",
            "p99_ms": "of calls that are no streams, over the last minute; null without any",
            "queues": "items that wait, by the queue's name",
            **CHECKS,
        },
    },
    "/version": {
        "intro": "",
        "keys": {
            "component": "which component it is",
            "version": "its version",
            "commit": "the commit that it was built from; empty if the build was not told",
            "instance": "random for each start",
            "start_time": "when it started",
        },
    },
}
