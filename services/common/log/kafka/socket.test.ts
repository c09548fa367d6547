import { createServer, type Server, type Socket } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { openSocket, Responses } from "./socket.ts";

const response = (payload: number[]): Buffer => {
  const bytes = Buffer.alloc(4 + payload.length);
  bytes.writeInt32BE(payload.length);
  bytes.set(payload, 4);
  return bytes;
};

describe("responses", () => {
  it("should come whole and alone however the bytes are cut", () => {
    const sent = [response([1, 2, 3]), response([]), response([...Array(300).keys()]), response([9])];
    const stream = Buffer.concat(sent);
    for (let step = 1; step <= stream.length; step++) {
      const got: Buffer[] = [];
      const responses = new Responses((one) => got.push(one));
      // One buffer for every read, as the socket has it.
      const read = Buffer.alloc(step);
      for (let at = 0; at < stream.length; at += step) {
        const length = stream.copy(read, 0, at, at + step);
        responses.push(read.subarray(0, length));
      }
      expect(got, `in steps of ${step}`).toEqual(sent);
    }
  });

  it("should refuse a length that no broker sends, before it is allocated", () => {
    for (const bytes of [Buffer.from("HTTP/1.1 400"), Buffer.from([0xff, 0xff, 0xff, 0xfe])]) {
      const responses = new Responses(() => expect.unreachable());
      expect(() => responses.push(bytes)).toThrow(/is this the port of a Kafka broker/);
    }
  });
});

describe("a socket", () => {
  const open: (Server | Socket)[] = [];
  afterEach(() => {
    for (const one of open.splice(0)) "destroy" in one ? one.destroy() : one.close();
  });

  const connectTo = async (serve: (peer: Socket) => void): Promise<Socket> => {
    const server = createServer((peer) => {
      open.push(peer);
      serve(peer);
    });
    open.push(server);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as { port: number };
    const socket = openSocket({ host: "127.0.0.1", port, ssl: undefined as never, onConnect: () => {} });
    open.push(socket);
    return socket;
  };

  it("should hand over one response as one buffer, larger than a read or not", async () => {
    const sent = [response([7]), response(Array(1_000_000).fill(5)), response([8])];
    const socket = await connectTo((peer) => peer.end(Buffer.concat(sent)));
    const got: Buffer[] = [];
    socket.on("data", (bytes) => got.push(bytes as Buffer));
    await new Promise((resolve) => socket.once("end", resolve));
    expect(got.map((one) => one.length)).toEqual(sent.map((one) => one.length));
    expect(Buffer.concat(got).equals(Buffer.concat(sent))).toBe(true);
  });

  it("should end with an error that says what is wrong when something else listens there", async () => {
    const socket = await connectTo((peer) => peer.end("HTTP/1.1 400 Bad Request\r\n\r\n"));
    socket.on("data", () => expect.unreachable());
    const error = await new Promise<Error>((resolve) => socket.once("error", resolve));
    expect(error.message).toMatch(/is this the port of a Kafka broker/);
  });
});
