// A client of Muster with grpc-js: offers, a service from its creation to HEALTHY, a drain, and
// what can go wrong.
//
// Against `muster up --workers 2 --gpus H100:8`: npm ci, npm run generate, npm start

import { setTimeout as sleep } from "node:timers/promises";

import {
  type CallOptions,
  type ClientReadableStream,
  credentials,
  Metadata,
  type ServiceError,
  status,
} from "@grpc/grpc-js";

import { ListOffersRequest, OfferFilter, OffersServiceClient, WatchBackendsRequest } from "../gen/muster/offers/v1/offers.js";
import {
  CreateServiceRequest,
  DeleteServiceRequest,
  ListReplicasRequest,
  ReplicasServiceClient,
  UpdateServiceRequest,
  WatchServicesRequest,
} from "../gen/muster/replicas/v1/replicas.js";
import { ServicePhase } from "../gen/muster/replicas/v1/resources.js";
import { ServiceSpec } from "../gen/muster/replicas/v1/spec.js";
import { WorkerState } from "../gen/muster/workers/v1/resources.js";
import {
  DrainWorkerRequest,
  EnableWorkerRequest,
  WatchWorkersRequest,
  WorkersServiceClient,
} from "../gen/muster/workers/v1/workers.js";
import { details } from "./details.js";

const address = (name: string, port: number) => process.env[name] ?? `127.0.0.1:${port}`;
const offers = new OffersServiceClient(address("OFFERS", 7400), credentials.createInsecure());
const workers = new WorkersServiceClient(address("WORKERS", 7401), credentials.createInsecure());
const replicas = new ReplicasServiceClient(address("REPLICAS", 7402), credentials.createInsecure());

const service = ServiceSpec.fromPartial({
  name: "hello-typescript",
  replicas: { min: 1 },
  run: { runtime: { $case: "process", value: {} }, command: ["/bin/sh", "-c", "echo hello; exec sleep 3600"] },
  resources: { gpuAnyOf: [{ names: ["H100"] }] },
  // With a retry policy a failed replica is restarted; without one the first failure ends the service.
  retry: { interval: { seconds: 1 } },
  stop: { grace: { seconds: 2 } },
});

type Done<Answer> = (error: ServiceError | null, answer: Answer) => void;

/** A unary call with a deadline, without which it waits for as long as the server lets it. */
function call<Request, Answer>(
  client: object,
  method: (request: Request, metadata: Metadata, options: Partial<CallOptions>, done: Done<Answer>) => unknown,
  request: Request,
): Promise<Answer> {
  const deadline = new Date(Date.now() + 10_000);
  return new Promise((resolve, reject) => {
    method.call(client, request, new Metadata(), { deadline }, (error, answer) => (error ? reject(error) : resolve(answer)));
  });
}

interface Watched<Change> {
  changes: Change[];
  resumeToken: string;
}

// A watcher that is too slow is cut off with the last of them.
const BROKEN = new Set([status.UNAVAILABLE, status.INTERNAL, status.CANCELLED, status.RESOURCE_EXHAUSTED]);

/**
 * Every change that a watch brings. A watch that breaks goes on where it was; one whose history is
 * gone starts anew with what there is now. Whoever is refused for another reason hears of it.
 */
async function* changes<Change>(
  open: (resumeToken: string) => ClientReadableStream<Watched<Change>>,
): AsyncGenerator<Change> {
  let resumeToken = "";
  let delay = 100;
  while (true) {
    // A server that goes away ends its watches.
    let code = status.UNAVAILABLE;
    const stream = open(resumeToken);
    try {
      for await (const message of stream as AsyncIterable<Watched<Change>>) {
        delay = 100;
        resumeToken = message.resumeToken || resumeToken;
        yield* message.changes;
      }
    } catch (error) {
      code = (error as ServiceError).code;
      if (code === status.OUT_OF_RANGE) {
        resumeToken = "";
      } else if (!BROKEN.has(code)) {
        throw error;
      }
    } finally {
      // Whoever has seen enough does not leave a stream open. What it says to that is of no interest.
      stream.on("error", () => {});
      stream.cancel();
    }
    console.log(`the watch broke (${status[code]}), going on`);
    await sleep(delay);
    delay = Math.min(delay * 2, 5_000);
  }
}

async function listOffers() {
  const filter = OfferFilter.fromPartial({ requirements: { gpuAnyOf: [{ names: ["H100"] }] } });
  const answer = await call(offers, offers.listOffers, ListOffersRequest.fromPartial({ filter, pageSize: 3 }));
  for (const offer of answer.offers) {
    console.log(`offer ${offer.id} at $${((offer.price?.microUsdPerHour ?? 0) / 1e6).toFixed(2)} an hour`);
  }
  console.log(`3 of ${answer.totalSize} offers, from ${answer.backends.length} backends`);
}

async function tooLate() {
  // A watch ends by its deadline alone, as a call does that takes too long.
  const options = { deadline: new Date(Date.now() + 200) };
  const stream = offers.watchBackends(WatchBackendsRequest.fromPartial({}), new Metadata(), options);
  try {
    for await (const _ of stream);
  } catch (error) {
    console.log(`too late: ${status[(error as ServiceError).code]}`);
  }
}

async function refused() {
  const spec = ServiceSpec.fromPartial({ name: "Not A Name", replicas: { min: -1 } });
  try {
    await call(replicas, replicas.createService, CreateServiceRequest.fromPartial({ spec }));
  } catch (error) {
    const said = error as ServiceError;
    const { reason, fields } = details(said);
    const wrong = fields.map(({ field, description }) => `${field}: ${description}`).join("; ");
    console.log(`refused: ${status[said.code]}: ${said.details}; reason ${reason}; ${wrong}`);
  }
}

async function apply() {
  const request = UpdateServiceRequest.fromPartial({ spec: service, updateMask: ["*"], allowMissing: true });
  const answer = await call(replicas, replicas.updateService, request);
  console.log(`applied ${answer.service?.name}`);
}

async function watchToHealthy() {
  const open = (resumeToken: string) =>
    replicas.watchServices(WatchServicesRequest.fromPartial({ filter: { names: [service.name] }, resumeToken }));
  for await (const { change } of changes(open)) {
    const now = change?.$case === "put" ? change.value.status : undefined;
    if (!now) continue;
    console.log(`${service.name} is ${now.phase}: ${now.reason}`);
    if (now.phase === ServicePhase.SERVICE_PHASE_HEALTHY) return;
    if (now.phase === ServicePhase.SERVICE_PHASE_FAILED) throw new Error(`${service.name} has failed: ${now.reason}`);
  }
}

async function drain(name: string) {
  await call(workers, workers.drainWorker, DrainWorkerRequest.fromPartial({ name, reason: "an example" }));
  const open = (resumeToken: string) =>
    workers.watchWorkers(WatchWorkersRequest.fromPartial({ filter: { names: [name] }, resumeToken }));
  for await (const { change } of changes(open)) {
    // What is only observed, such as a drain's progress, comes apart from what is stored.
    if (!change || change.$case === "deleted") continue;
    const worker = change.value;
    console.log(`${name} is ${worker.state}, ${worker.drain?.left ?? 0} left`);
    if (worker.state === WorkerState.WORKER_STATE_DISABLED) return;
  }
}

await listOffers();
await tooLate();
await refused();
await apply();
await watchToHealthy();
const filter = { services: [service.name] };
const listed = await call(replicas, replicas.listReplicas, ListReplicasRequest.fromPartial({ filter }));
const worker = listed.replicas[0]?.attempt?.worker ?? "";
await drain(worker);
await call(workers, workers.enableWorker, EnableWorkerRequest.fromPartial({ name: worker }));
await call(replicas, replicas.deleteService, DeleteServiceRequest.fromPartial({ name: service.name }));
console.log("done");
for (const client of [offers, workers, replicas]) client.close();
