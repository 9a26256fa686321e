// SPDX-License-Identifier: GPL-2.0-only
//
// Opens a trace in Perfetto's own parser and asks it in SQL. The parser is the trace processor of
// Perfetto's UI, WebAssembly and the script that serves it to a page; this file plays the page, and
// speaks protos/perfetto/trace_processor/trace_processor.proto, whose field numbers stand below.
//
//   node perfetto_sql.mjs FOLDER TRACE < QUERIES
//
// FOLDER holds engine_bundle.js and trace_processor.wasm. QUERIES is a JSON array of statements; the
// answer is a JSON array that has for each the rows, as objects.

import fs from "node:fs";
import path from "node:path";
import process from "node:process";

const APPEND_TRACE_DATA = 1;
const FINALIZE_TRACE_DATA = 2;
const QUERY_STREAMING = 3;
const CHUNK_BYTES = 1 << 20;

// ---- protobuf, as much as is needed ----

function varint(value) {
  const bytes = [];
  let rest = BigInt(value);
  do {
    bytes.push(Number(rest & 127n) | (rest > 127n ? 128 : 0));
    rest >>= 7n;
  } while (rest > 0n);
  return Buffer.from(bytes);
}

const number = (field, value) => Buffer.concat([varint(field * 8), varint(value)]);
const bytes = (field, value) => Buffer.concat([varint(field * 8 + 2), varint(value.length), value]);

function readVarint(buffer, at) {
  let value = 0n;
  for (let shift = 0n; ; shift += 7n) {
    const byte = buffer[at++];
    if (byte === undefined) throw new Error("a message is cut short");
    value |= BigInt(byte & 127) << shift;
    if (byte < 128) return [BigInt.asUintN(64, value), at];
  }
}

/** The fields of a message, in order: [number, value]. */
function* fields(buffer) {
  for (let at = 0; at < buffer.length; ) {
    let key, value;
    [key, at] = readVarint(buffer, at);
    const wire = Number(key & 7n);
    if (wire === 0) [value, at] = readVarint(buffer, at);
    else if (wire === 2) {
      let length;
      [length, at] = readVarint(buffer, at);
      value = buffer.subarray(at, (at += Number(length)));
    } else {
      value = buffer.subarray(at, (at += wire === 1 ? 8 : 4));
    }
    yield [Number(key >> 3n), value];
  }
}

function* packedVarints(buffer) {
  for (let at = 0; at < buffer.length; ) {
    let value;
    [value, at] = readVarint(buffer, at);
    yield value;
  }
}

/** A CellsBatch: the cells in order, each of its type. */
function* cells(batch) {
  const types = [], ints = [], floats = [], blobs = [];
  let strings = [];
  for (const [field, value] of fields(batch)) {
    if (field === 1) types.push(...[...packedVarints(value)].map(Number));
    else if (field === 2) ints.push(...packedVarints(value));
    else if (field === 3) for (let at = 0; at < value.length; at += 8) floats.push(value.readDoubleLE(at));
    else if (field === 4) blobs.push(value.toString("hex"));
    else if (field === 5) strings = value.toString().split("\0");
  }
  for (const type of types) {
    if (type === 1) yield null;
    else if (type === 2) yield Number(BigInt.asIntN(64, ints.shift()));
    else if (type === 3) yield floats.shift();
    else if (type === 4) yield strings.shift();
    else yield blobs.shift();
  }
}

// ---- the worker's side of a browser ----

const [folder, trace] = process.argv.slice(2);
const replies = [];
let wake = () => {};

const fail = (error) => {
  console.error(`perfetto_sql: ${error instanceof Error ? error.message : error}`);
  process.exit(1);
};
process.on("uncaughtException", fail);
process.on("unhandledRejection", fail);

const port = {
  postMessage: (reply) => {
    replies.push(Buffer.from(reply));
    wake();
  },
};
globalThis.self = globalThis;
globalThis.location = { href: "http://localhost/engine_bundle.js" };
globalThis.WorkerGlobalScope = class {};
globalThis.importScripts = () => {};
// a page fetches the parser; here it lies in the folder
globalThis.XMLHttpRequest = class {
  open(_method, url) {
    this.file = path.join(folder, path.basename(String(url)));
  }
  send() {
    this.response = new Uint8Array(fs.readFileSync(this.file)).buffer;
  }
};
// the script would take this for Node and look for what it was not built with
const { versions } = process;
Object.defineProperty(process, "versions", { value: { ...versions, node: undefined } });
(0, eval)(fs.readFileSync(path.join(folder, "engine_bundle.js"), "utf8"));
globalThis.onmessage({ data: port });

// ---- the protocol ----

const until = async (ready) => {
  for (let tries = 0; !ready(); tries++) {
    if (tries > 600) throw new Error("the parser does not answer");
    await new Promise((resolve) => {
      wake = resolve;
      setTimeout(resolve, 100);
    });
  }
};

let seq = 0;
let pending = Buffer.alloc(0);
const received = [];

function send(method, more = Buffer.alloc(0)) {
  const rpc = Buffer.concat([number(1, seq++), number(2, method), more]);
  port.onmessage({ data: new Uint8Array(bytes(1, rpc)) });
}

/** Takes whole messages of the stream out of what has arrived. */
function receive() {
  pending = Buffer.concat([pending, ...replies.splice(0)]);
  for (;;) {
    try {
      const [, start] = readVarint(pending, 0);
      const [length, body] = readVarint(pending, start);
      if (pending.length < body + Number(length)) return;
      received.push([...fields(pending.subarray(body, body + Number(length)))]);
      pending = pending.subarray(body + Number(length));
    } catch {
      return;
    }
  }
}

async function answer(field) {
  let found;
  await until(() => {
    receive();
    found = received.shift();
    return found !== undefined;
  });
  const fatal = found.find(([number]) => number === 5);
  if (fatal) throw new Error(`the parser died: ${fatal[1]}`);
  return found.find(([number]) => number === field)?.[1];
}

async function query(sql) {
  send(QUERY_STREAMING, bytes(103, bytes(1, Buffer.from(sql))));
  const names = [], values = [];
  for (let last = false; !last; ) {
    for (const [field, value] of fields(await answer(203))) {
      if (field === 1) names.push(value.toString());
      else if (field === 2 && value.length) throw new Error(`${sql}: ${value}`);
      else if (field === 3) {
        values.push(...cells(value));
        last ||= [...fields(value)].some(([field, value]) => field === 6 && value === 1n);
      }
    }
  }
  const rows = [];
  while (values.length) rows.push(Object.fromEntries(names.map((name) => [name, values.shift()])));
  return rows;
}

let ready = false;
// the port is listened to as soon as the parser runs
await until(() => (ready ||= typeof port.onmessage === "function"));
const data = fs.readFileSync(trace);
for (let at = 0; at < data.length; at += CHUNK_BYTES) {
  send(APPEND_TRACE_DATA, bytes(101, data.subarray(at, at + CHUNK_BYTES)));
  const result = await answer(201);
  for (const [field, value] of fields(result)) if (field === 2) throw new Error(`not a trace: ${value}`);
}
send(FINALIZE_TRACE_DATA);
await answer(0);
const answers = [];
for (const sql of JSON.parse(fs.readFileSync(0, "utf8"))) answers.push(await query(sql));
console.log(JSON.stringify(answers));
process.exit(0);
