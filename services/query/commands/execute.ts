/**
 * Runs neighbouring commands of one kind together and answers an outcome for each, in order.
 *
 * - plain: one command. If it answers at once, so does this: PING never waits for a turn of the event loop.
 * - read: all at once.
 * - search: plans are made until they ask for RESULTS_MAX together, then one call into the engine answers them;
 *   the commands after them get no outcome yet.
 * - write: plans are made one after the other; the first that needs a collection which is not there makes it,
 *   once the engine has accepted its vector. The engine checks all other vectors in one call, the records enter
 *   the log in order, the acknowledgements are awaited together.
 *
 * A command that fails gets its own error; its neighbours are answered all the same. Nothing here throws.
 */
import { checkRequest, type SearchReply, type SearchRequest } from "../core.ts";
import { asReplyError, fromFailure, ReplyError } from "../errors.ts";
import type {
  Call,
  Command,
  CommandContext,
  FirstWritePlan,
  Reply,
  SearchPlan,
  WritePlan,
} from "./command.ts";
import { checkDimensions } from "./vector-argument.ts";

export type Outcome = Reply | ReplyError;

/** Results that one call into the engine may ask for: as many as the largest search alone (COUNT_MAX). */
export const RESULTS_MAX = 10_000;
/**
 * Ids and attributes of one answer. 10,000 results with all their 1 KiB and 64 KiB would be 635 MiB; at 12 KiB
 * each they fit. Beyond it a client is told to ask for fewer, as the answer is held whole until it is written.
 */
export const ANSWER_BYTES_MAX = 128 * 1024 * 1024;

export interface Prepared {
  /** as the command table writes it, or "unknown" */
  name: string;
  command: Command;
  call: Call;
}

/** Outcomes of the first commands of the group, one at least; the others are asked for again. */
export function execute(group: Prepared[]): Outcome[] | Promise<Outcome[]> {
  const first = group[0] as Prepared;
  switch (first.command.kind) {
    case "plain":
    case "read":
      return group.length === 1
        ? runOne(first)
        : Promise.all(group.map(async (prepared) => await run(prepared)));
    case "search":
      return search(group, first.call.context);
    case "write":
      return write(group, first.call.context);
  }
}

/** A write from a plain command: checked, put into the log, acknowledged. */
export async function performWrite(context: CommandContext, plan: WritePlan): Promise<Reply> {
  await checkPlan(context, plan);
  return plan.reply(await context.writer.write(plan.collection, plan.change));
}

/** Throws when the vector of a write is refused by the engine. */
export async function checkPlan(context: CommandContext, plan: WritePlan): Promise<void> {
  const [failure] = await checkVectors(context, [plan]);
  if (failure !== undefined) throw failure;
}

function runOne(prepared: Prepared): Outcome[] | Promise<Outcome[]> {
  const outcome = run(prepared);
  return outcome instanceof Promise ? outcome.then((settled) => [settled]) : [outcome];
}

function run({ command, call }: Prepared): Outcome | Promise<Outcome> {
  try {
    if (command.kind !== "plain" && command.kind !== "read")
      throw new Error(`${command.kind} is not run alone`);
    const reply = command.run(call);
    return reply instanceof Promise ? reply.catch(asReplyError) : reply;
  } catch (error) {
    return asReplyError(error);
  }
}

async function search(group: Prepared[], context: CommandContext): Promise<Outcome[]> {
  const plans: (Outcome | SearchPlan)[] = [];
  let results = 0;
  for (const prepared of group) {
    const found = await plan<SearchPlan>(prepared);
    if (isPlan(found)) results += found.request.k;
    if (results > RESULTS_MAX && plans.length > 0) break;
    plans.push(found);
  }
  const searches = plans.filter(isPlan);
  let answers: SearchReply[] | ReplyError = [];
  try {
    if (searches.length > 0) answers = await context.core.search(searches.map((found) => found.request));
    for (const { cost } of answers) if (cost !== undefined) context.metrics.searched(cost);
  } catch (error) {
    answers = asReplyError(error);
  }
  let next = 0;
  return plans.map((found) => {
    if (!isPlan(found)) return found;
    return answers instanceof ReplyError ? answers : answer(found, answers[next++]);
  });
}

function answer(found: SearchPlan, reply: SearchReply | undefined): Outcome {
  if (reply === undefined) return new ReplyError("ERR", "the engine left a search unanswered");
  if (reply.error !== undefined) {
    const { vector, scope } = found.request;
    const missing = vector.kind === "element" && scope !== "at" && reply.error.code === "NOT_FOUND";
    return missing ? new ReplyError("ERR", "element not found in set", 404) : fromFailure(reply.error);
  }
  try {
    checkAnswer(reply);
    return found.reply(reply);
  } catch (error) {
    return asReplyError(error);
  }
}

/** Throws for an answer that is too large to be held and written. */
export function checkAnswer({ ids, attrs }: SearchReply): void {
  const bytes = ids.length + (attrs?.length ?? 0);
  if (bytes <= ANSWER_BYTES_MAX) return;
  const message = `the answer has ${bytes} bytes, at most ${ANSWER_BYTES_MAX} are possible: ask for fewer`;
  throw new ReplyError("ERR", message);
}

async function write(group: Prepared[], context: CommandContext): Promise<Outcome[]> {
  const plans: (Outcome | WritePlan)[] = [];
  for (const prepared of group) {
    const found = await plan<FirstWritePlan>(prepared);
    plans.push(isPlan(found) ? await settleCollection(context, found) : found);
  }
  const writes = plans.filter(isPlan);
  const failures = await checkVectors(context, writes);
  let next = 0;
  return await Promise.all(
    plans.map(async (found) => {
      if (!isPlan(found)) return found;
      const failure = failures[next++];
      if (failure !== undefined) return failure;
      // Reached by every plan in this very turn, so records enter the queue in the order of the commands.
      return await context.writer.write(found.collection, found.change).then(
        (ack) => found.reply(ack),
        (error) => asReplyError(error),
      );
    }),
  );
}

/**
 * Makes the collection of a first write, if its vector is right: a refused one must leave nothing behind, least
 * of all a collection of the wrong dimension.
 */
async function settleCollection(
  context: CommandContext,
  { collection, check, ...rest }: FirstWritePlan,
): Promise<WritePlan | ReplyError> {
  if ("incarnation" in collection) {
    return { ...rest, collection, ...(check === undefined ? {} : { check }) };
  }
  try {
    const failure = check && (await context.core.search([checkRequest("", check)]))[0]?.error;
    if (failure !== undefined) return fromFailure(failure);
    const made = await context.collections.findOrCreate(collection);
    // Somebody else may have been faster, with another dimension.
    checkDimensions(collection.dim, made.dim);
    return { ...rest, collection: made };
  } catch (error) {
    return asReplyError(error);
  }
}

/** For each plan the reason why its vector is refused, or undefined: asked of the engine in one call. */
async function checkVectors(
  context: CommandContext,
  plans: WritePlan[],
): Promise<(ReplyError | undefined)[]> {
  const requests: SearchRequest[] = [];
  for (const { check, collection } of plans) {
    if (check === undefined) continue;
    requests.push(checkRequest(collection.incarnation, check));
  }
  if (requests.length === 0) return plans.map(() => undefined);
  try {
    const answers = await context.core.search(requests);
    let next = 0;
    return plans.map(({ check }) => {
      const failure = check === undefined ? undefined : answers[next++]?.error;
      return failure === undefined ? undefined : fromFailure(failure);
    });
  } catch (error) {
    const failure = asReplyError(error);
    return plans.map(({ check }) => (check === undefined ? undefined : failure));
  }
}

async function plan<Plan extends SearchPlan | FirstWritePlan>({
  command,
  call,
}: Prepared): Promise<Outcome | Plan> {
  try {
    if (command.kind !== "search" && command.kind !== "write") throw new Error(`${command.kind} has no plan`);
    return (await command.plan(call)) as Reply | Plan;
  } catch (error) {
    return asReplyError(error);
  }
}

function isPlan<Plan extends SearchPlan | FirstWritePlan>(found: Outcome | Plan): found is Plan {
  return typeof found === "object" && !(found instanceof ReplyError);
}
