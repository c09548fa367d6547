/**
 * The parts of kafkajs that its types do not show and that the guards of this folder stand on.
 *
 * kafkajs is unmaintained and pinned to one version, so these shapes do not move; they are written down
 * here, once, and nowhere else. Each was read in its source (2.2.4):
 * - a partition assigner is called with `cluster`, which finds leaders and coordinators and speaks the
 *   protocol;
 * - the `batch` that eachBatch gets is a Batch, with `fetchedOffset` (the offset that was asked for) and
 *   a `lastOffset()` that counts control and aborted records;
 * - a connection's `processData` joins what came with what it has, which after the first response is an
 *   empty buffer: it copies each response whole.
 */
import { createRequire } from "node:module";
import type { Socket } from "node:net";
import type { Batch, KafkaMessage, PartitionAssigner } from "kafkajs";

export interface FetchedBatch extends Batch {
  fetchedOffset: string;
}

export interface FetchedPartition {
  partition: number;
  highWatermark: string;
  abortedTransactions: unknown[];
  messages: KafkaMessage[];
}

export interface Broker {
  fetch(request: {
    isolationLevel: 0 | 1;
    maxWaitTime: number;
    minBytes: number;
    maxBytes: number;
    topics: { topic: string; partitions: { partition: number; fetchOffset: string; maxBytes: number }[] }[];
  }): Promise<{ responses: { topicName: string; partitions: FetchedPartition[] }[] }>;
  offsetCommit(request: {
    groupId: string;
    memberId: string;
    groupGenerationId: number;
    topics: { topic: string; partitions: { partition: number; offset: string }[] }[];
  }): Promise<unknown>;
}

export interface Cluster {
  addTargetTopic(topic: string): Promise<void>;
  refreshMetadata(): Promise<void>;
  refreshMetadataIfNecessary(): Promise<void>;
  findBroker(node: { nodeId: string }): Promise<Broker>;
  findGroupCoordinator(group: { groupId: string }): Promise<Broker>;
  findLeaderForPartitions(topic: string, partitions: number[]): Record<string, number[]>;
  findTopicPartitionMetadata(topic: string): { partitionId: number }[];
}

export interface Connection {
  socket: Socket;
  authHandlers: object | null;
  requestQueue: { fulfillRequest(response: { size: number; correlationId: number; payload: Buffer }): void };
  processData(bytes: Buffer): void;
}

interface BatchConstructor {
  new (
    topic: string,
    fetchedOffset: string,
    data: FetchedPartition,
  ): FetchedBatch & { rawMessages: unknown[] };
}

const require = createRequire(import.meta.url);

/** Filters aborted and control records exactly as the running consumer does. */
export const KafkaBatch = require("kafkajs/src/consumer/batch.js") as BatchConstructor;

/** What all connections share. */
export const connections = (require("kafkajs/src/network/connection.js") as { prototype: Connection })
  .prototype;

/** The cluster that kafkajs hands to assigners, which its types call `any` or leave out. */
export function clusterOf(config: Parameters<PartitionAssigner>[0]): Cluster {
  return (config as unknown as { cluster: Cluster }).cluster;
}
