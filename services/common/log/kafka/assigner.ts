/**
 * A partition assigner for kafkajs, which has no `assign()`: each member of a throw-away group gets
 * every partition of the topic, so a process that owns all partitions waits for nobody's session.
 *
 * kafkajs hands its cluster to assigners; it is passed on, for offset reports under another group's
 * name and for reads without any group.
 */
import type { PartitionAssigner } from "kafkajs";
import kafkajs from "kafkajs";
import { type Cluster, clusterOf } from "./internals.ts";

const { MemberAssignment, MemberMetadata } = kafkajs.AssignerProtocol;
const NAME = "vexlake-all";
const VERSION = 0;
const NO_USER_DATA = Buffer.alloc(0);

export function everything(onCluster: (cluster: Cluster) => void): PartitionAssigner {
  return (config) => {
    const cluster = clusterOf(config);
    onCluster(cluster);
    return {
      name: NAME,
      version: VERSION,
      async assign({ members, topics }) {
        const assignment = Object.fromEntries(topics.map((topic) => [topic, partitionsOf(cluster, topic)]));
        return members.map(({ memberId }) => ({
          memberId,
          memberAssignment: MemberAssignment.encode({ version: VERSION, assignment, userData: NO_USER_DATA }),
        }));
      },
      protocol: ({ topics }) => ({
        name: NAME,
        metadata: MemberMetadata.encode({ version: VERSION, topics, userData: NO_USER_DATA }),
      }),
    };
  };
}

function partitionsOf(cluster: Cluster, topic: string): number[] {
  return cluster
    .findTopicPartitionMetadata(topic)
    .map(({ partitionId }) => partitionId)
    .sort((a, b) => a - b);
}
