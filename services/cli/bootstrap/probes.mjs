/*
 * Readiness by the real protocol: an open port only proves that something listens. Each probe
 * makes one exchange and throws when the answer is not the expected one; `waitReady` repeats it.
 */
import { request } from "node:http";
import { connect } from "node:net";

/** One exchange on a quiet machine takes below 5 ms; a busy one gets two seconds. */
const EXCHANGE_TIMEOUT_MS = 2_000;

/** Sends bytes and collects until `enough(buffer)`; rejects on error, end or timeout. */
export function exchange({ host, port, send, enough }) {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port });
    let received = Buffer.alloc(0);
    const fail = (message) => {
      socket.destroy();
      reject(new Error(`${host}:${port} ${message}`));
    };
    socket.setTimeout(EXCHANGE_TIMEOUT_MS, () => fail("did not answer in time"));
    socket.once("error", (error) => fail(error.code ?? error.message));
    socket.once("close", () => fail("closed the connection"));
    socket.once("connect", () => socket.write(send));
    socket.on("data", (chunk) => {
      received = Buffer.concat([received, chunk]);
      if (!enough(received)) return;
      socket.removeAllListeners("close");
      socket.destroy();
      resolve(received);
    });
  });
}

/** PING → PONG; also fails while Redis is loading its data. */
export async function probeRedis({ host, port }) {
  const reply = await exchange({ host, port, send: "PING\r\n", enough: (bytes) => bytes.includes("\r\n") });
  if (!reply.toString("latin1").startsWith("+PONG")) throw new Error(reply.toString("latin1").trim());
}

const API_METADATA = 3;
const CORRELATION_ID = 0x5645584c; // "VEXL"

/** Pure: a Kafka Metadata v1 request that asks for no topic. */
export function metadataRequest() {
  const client = Buffer.from("vexlake-probe");
  const body = Buffer.alloc(4 + 2 + 2 + 4 + 2 + client.length + 4);
  body.writeInt32BE(body.length - 4, 0);
  body.writeInt16BE(API_METADATA, 4);
  body.writeInt16BE(1, 6); // version
  body.writeInt32BE(CORRELATION_ID, 8);
  body.writeInt16BE(client.length, 12);
  client.copy(body, 14);
  body.writeInt32BE(0, 14 + client.length); // an empty topic list, null would mean all
  return body;
}

/** Pure: the number of brokers in a Metadata v1 response. */
export function brokersInMetadata(response) {
  if (response.readInt32BE(4) !== CORRELATION_ID) throw new Error("a reply to somebody else's request");
  return response.readInt32BE(8);
}

/** Ready when the broker lists itself: it listens some hundred milliseconds before that. */
export async function probeKafka({ host, port }) {
  const whole = (bytes) => bytes.length >= 4 && bytes.length >= 4 + bytes.readInt32BE(0);
  const reply = await exchange({ host, port, send: metadataRequest(), enough: whole });
  if (brokersInMetadata(reply) < 1) throw new Error("no broker is registered yet");
}

/**
 * An unsigned request must be answered in S3's own words (an XML error or listing), which tells
 * the S3 endpoint from any other HTTP server.
 */
export function probeS3({ host, port }) {
  return new Promise((resolve, reject) => {
    const call = request({ host, port, path: "/", timeout: EXCHANGE_TIMEOUT_MS }, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (chunk) => {
        text += chunk;
      });
      response.on("end", () => {
        if (/<Error>|<ListAllMyBucketsResult/.test(text)) resolve();
        else reject(new Error(`HTTP ${response.statusCode} without an S3 answer`));
      });
    });
    call.on("timeout", () => call.destroy(new Error("did not answer in time")));
    call.on("error", reject);
    call.end();
  });
}
