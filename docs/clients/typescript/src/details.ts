// What a server says of a failed call beside its code: google.rpc.Status in the trailer
// `grpc-status-details-bin`, of which grpc-js gives the bytes.

import { BinaryReader } from "@bufbuild/protobuf/wire";
import type { ServiceError } from "@grpc/grpc-js";

export interface Details {
  /** The reason, for programs: one of muster.types.v1.ErrorReason without its prefix. */
  reason: string;
  /** Every wrong field of the request, and what is wrong with it. */
  fields: { field: string; description: string }[];
}

/** The strings and the embedded messages of a message, by the number of their field. */
function* fields(bytes: Uint8Array): Generator<[number, Uint8Array]> {
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [number, wireType] = reader.tag();
    if (wireType === 2) {
      yield [number, reader.bytes()];
    } else {
      reader.skip(wireType, number);
    }
  }
}

function texts(bytes: Uint8Array): Record<number, string> {
  const all: Record<number, string> = {};
  for (const [number, value] of fields(bytes)) {
    all[number] = new TextDecoder().decode(value);
  }
  return all;
}

export function details(error: ServiceError): Details {
  const found: Details = { reason: "", fields: [] };
  const trailer = error.metadata?.get("grpc-status-details-bin")[0];
  if (!(trailer instanceof Uint8Array)) {
    return found;
  }
  for (const [number, any] of fields(trailer)) {
    // Status.details, each a google.protobuf.Any of a type (1) and a value (2).
    if (number !== 3) continue;
    const parts = Object.fromEntries(fields(any));
    const type = new TextDecoder().decode(parts[1]);
    const value = parts[2] ?? new Uint8Array();
    if (type.endsWith("/google.rpc.ErrorInfo")) {
      found.reason = texts(value)[1] ?? "";
    } else if (type.endsWith("/google.rpc.BadRequest")) {
      for (const [, violation] of fields(value)) {
        const { 1: field = "", 2: description = "" } = texts(violation);
        found.fields.push({ field, description });
      }
    }
  }
  return found;
}
