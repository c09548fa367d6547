/**
 * Groups of the local log: who of this process's consumers has which partition.
 *
 * Partition i goes to member i mod n, in joining order. A change runs in two rounds, as an eager Kafka
 * rebalance does: first every member stops, waits for its running deliveries and tells what it loses;
 * only then anybody claims. Changes of one group run one after the other.
 */
export interface GroupMember {
  /** Stops delivering; resolves when nothing runs and `revoked` was told what is not in `keeps`. */
  release(keeps: number[]): Promise<void>;
  /** Claims and starts; does not wait for the claim's answer, which may take retries. */
  take(partitions: number[]): void;
}

interface Group {
  members: GroupMember[];
  changing: Promise<void>;
  /** Changes that are under way or wait. */
  waiting: number;
}

export class LocalGroups {
  readonly #groups = new Map<string, Group>();

  async join(group: string, topic: string, partitions: number, member: GroupMember): Promise<void> {
    await this.#change(key(group, topic), partitions, (members) => [...members, member]);
  }

  async leave(group: string, topic: string, partitions: number, member: GroupMember): Promise<void> {
    await this.#change(key(group, topic), partitions, (members) =>
      members.filter((other) => other !== member),
    );
  }

  #change(name: string, partitions: number, edit: (members: GroupMember[]) => GroupMember[]): Promise<void> {
    const group = this.#groups.get(name) ?? { members: [], changing: Promise.resolve(), waiting: 0 };
    this.#groups.set(name, group);
    group.waiting += 1;
    group.changing = group.changing.then(async () => {
      const before = group.members;
      const after = edit(before);
      group.members = after;
      const share = (member: GroupMember) => assign(partitions, after.indexOf(member), after.length);
      const all = [...new Set([...before, ...after])];
      await Promise.all(all.map((member) => member.release(share(member))));
      for (const member of after) member.take(share(member));
      // Not while another change waits: it would go on with a group that nobody finds any more.
      if (after.length === 0 && group.waiting === 1) this.#groups.delete(name);
      group.waiting -= 1;
    });
    return group.changing;
  }
}

function assign(partitions: number, member: number, members: number): number[] {
  const all = Array.from({ length: partitions }, (_, partition) => partition);
  return member < 0 ? [] : all.filter((partition) => partition % members === member);
}

function key(group: string, topic: string): string {
  return `${topic}\n${group}`;
}
