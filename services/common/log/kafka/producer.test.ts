/**
 * What the producer does when the broker's answer is missing. A real broker cannot be made to lose one
 * answer, so kafkajs' client is replaced by a script; everything else runs against Kafka in
 * test/contract.
 */
import type { Kafka, Producer, RecordMetadata } from "kafkajs";
import { describe, expect, it } from "vitest";
import { silentLogger } from "../../process/logger.ts";
import type { ProducedMessage } from "../source.ts";
import { KafkaProducer } from "./producer.ts";

type Send = (
  messages: { partition: number; value: string }[],
) => RecordMetadata[] | Promise<RecordMetadata[]>;

function scripted(steps: Send[], connect: () => Promise<void> = async () => {}) {
  const clients: { sends: string[][]; disconnected: boolean }[] = [];
  const kafka = {
    producer: () => {
      const client = { sends: [] as string[][], disconnected: false };
      clients.push(client);
      return {
        connect,
        disconnect: async () => {
          client.disconnected = true;
        },
        send: async ({ messages }: Parameters<Producer["send"]>[0]) => {
          const plain = messages.map(({ partition, value }) => ({
            partition: partition as number,
            value: String(value),
          }));
          client.sends.push(plain.map(({ value }) => value));
          return await (steps.shift() as Send)(plain);
        },
      };
    },
  };
  return { producer: new KafkaProducer(kafka as unknown as Kafka, "t", silentLogger()), clients };
}

const message = (value: string, partition = 0): ProducedMessage & { partition: number } => ({
  partition,
  key: null,
  value: Buffer.from(value),
});
const answer =
  (base: number): Send =>
  (messages) =>
    [...new Set(messages.map(({ partition }) => partition))].map((partition) => ({
      topicName: "t",
      partition,
      errorCode: 0,
      baseOffset: String(base),
    }));
const lost: Send = () => {
  throw Object.assign(new Error("connection closed"), { name: "KafkaJSConnectionClosedError" });
};

const tooLarge: Send = () => {
  throw Object.assign(new Error("too large"), { name: "KafkaJSProtocolError", type: "MESSAGE_TOO_LARGE" });
};

describe("kafka producer", () => {
  it("should_put_what_gathers_meanwhile_into_one_request_in_order", async () => {
    const { producer, clients } = scripted([answer(0), answer(1)]);
    const first = producer.produce([message("a")], 1);
    const rest = ["b", "c", "d"].map((value) => first.then(() => producer.produce([message(value)], 1)));
    expect(await Promise.all([first, ...rest])).toEqual(
      [0n, 1n, 2n, 3n].map((offset) => [{ partition: 0, offset }]),
    );
    expect(clients[0]?.sends).toEqual([["a"], ["b", "c", "d"]]);
  });

  it("should_call_a_lost_answer_a_write_in_doubt_and_never_send_it_again", async () => {
    const { producer, clients } = scripted([lost, answer(5)]);
    await expect(producer.produce([message("a")], 1)).rejects.toMatchObject({
      code: "UNAVAILABLE",
      doubt: true,
      retriable: false,
      message: expect.stringContaining("in doubt"),
    });
    expect(await producer.produce([message("b")], 1)).toEqual([{ partition: 0, offset: 5n }]);
    expect(clients.flatMap(({ sends }) => sends)).toEqual([["a"], ["b"]]);
  });

  it("should_take_a_new_producer_id_after_doubt_so_that_no_sequence_is_used_twice", async () => {
    const { producer, clients } = scripted([lost, answer(0)]);
    const doubtful = producer.produce([message("a")], 1).catch(() => "doubt");
    expect(await doubtful).toBe("doubt");
    await producer.produce([message("b")], 1);
    expect(clients.map(({ sends, disconnected }) => [sends.length, disconnected])).toEqual([
      [1, true],
      [1, false],
    ]);
  });

  it("should_doubt_a_partition_that_kafkajs_left_out_of_its_answer", async () => {
    const { producer } = scripted([() => []]);
    await expect(producer.produce([message("a", 0)], 2)).rejects.toMatchObject({ doubt: true });
  });

  it("should_ask_for_one_partition_in_a_request_so_that_no_retry_reaches_another", async () => {
    const { producer, clients } = scripted([answer(5), answer(7)]);
    const call = [message("a", 0), message("b", 1), message("c", 0)];
    expect(await producer.produce(call, 2)).toEqual([
      { partition: 0, offset: 5n },
      { partition: 1, offset: 7n },
      { partition: 0, offset: 6n },
    ]);
    expect(clients.map(({ sends }) => sends)).toEqual([[["a", "c"], ["b"]]]);
  });

  it("should_refuse_only_the_calls_that_the_broker_refused", async () => {
    const { producer } = scripted([tooLarge, answer(0)]);
    const [refused, written] = await Promise.allSettled([
      producer.produce([message("large", 0)], 2),
      producer.produce([message("small", 1)], 2),
    ]);
    expect(refused).toMatchObject({ reason: { code: "INVALID", doubt: false } });
    expect(written).toMatchObject({ value: [{ partition: 1, offset: 0n }] });
  });

  it("should_doubt_a_call_of_which_one_part_was_refused_and_another_written", async () => {
    const { promise: later, resolve: open } = Promise.withResolvers<void>();
    const slow: Send = async (messages) => {
      await later;
      return answer(0)(messages) as RecordMetadata[];
    };
    const { producer, clients } = scripted([tooLarge, slow]);
    let answered = false;
    const call = producer.produce([message("large", 0), message("small", 1)], 2).finally(() => {
      answered = true;
    });
    call.catch(() => {});
    for (let turn = 0; turn < 20; turn++) await Promise.resolve();
    // The refusal alone is no answer while another part is under way, whose client stays connected.
    expect([answered, clients[0]?.disconnected]).toEqual([false, false]);
    open();
    await expect(call).rejects.toMatchObject({ code: "UNAVAILABLE", doubt: true, retriable: false });
    expect(clients[0]?.disconnected).toBe(true);
  });

  it("should_say_that_nothing_was_sent_when_there_is_no_connection", async () => {
    const { producer, clients } = scripted([], async () => {
      throw new Error("ECONNREFUSED");
    });
    await expect(producer.produce([message("a")], 1)).rejects.toMatchObject({
      code: "UNAVAILABLE",
      doubt: false,
      message: expect.stringContaining("nothing was sent"),
    });
    expect(clients[0]?.sends).toEqual([]);
  });

  it("should_send_nothing_more_of_a_call_whose_first_part_failed", async () => {
    const large = Array.from({ length: 3 }, (_, i) => message(String(i).repeat(600_000)));
    const { producer, clients } = scripted([answer(0), lost, answer(9)]);
    await expect(producer.produce(large, 1)).rejects.toMatchObject({ doubt: true });
    await producer.produce([message("next")], 1);
    const sent = clients.flatMap(({ sends }) => sends).flat();
    expect(sent.map((value) => value.slice(0, 4))).toEqual(["0000", "1111", "next"]);
  });

  it("should_replace_its_client_before_writing_to_partitions_that_were_added", async () => {
    const { producer, clients } = scripted([answer(0), answer(0)]);
    await producer.produce([message("a", 0)], 1);
    await producer.produce([message("b", 1)], 2);
    expect(clients.map(({ sends }) => sends)).toEqual([[["a"]], [["b"]]]);
  });
});
