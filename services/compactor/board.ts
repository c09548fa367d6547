/**
 * bull-board at /jobs, for the BullMQ runner: an express application used as a plain handler.
 *
 * It reads and steers the queues in Redis directly (pause, retry, remove), also those that other
 * processes work on. Two things are ours: titles, because a job's name is its kind, which says
 * nothing to a reader, and a percentage beside the rows, which the board draws as a ring.
 */
import { createBullBoard } from "@bull-board/api";
import { BullMQAdapter } from "@bull-board/api/bullMQAdapter";
import { ExpressAdapter } from "@bull-board/express";
import express from "express";
import { JOB_KINDS, type JobKind, reasonOf, titleOf } from "../../schemas/jobs.ts";
import type { BullRunner } from "../common/jobs/bullmq.ts";
import type { JobProgress } from "../common/jobs/runner.ts";
import type { Handler } from "../common/process/http.ts";
import { JOBS_PATH, QUEUE_DESCRIPTIONS } from "./page.ts";

export function createBoard(runner: BullRunner): Handler {
  const serverAdapter = new ExpressAdapter();
  serverAdapter.setBasePath(JOBS_PATH);
  createBullBoard({
    queues: JOB_KINDS.map((kind) => adapterOf(runner, kind)),
    serverAdapter,
    options: { uiConfig: { boardTitle: "VexLake jobs", hideDocsLink: true, sortQueues: false } },
  });
  const app = express();
  app.disable("x-powered-by");
  app.use(JOBS_PATH, serverAdapter.getRouter());
  return app as Handler;
}

function adapterOf(runner: BullRunner, kind: JobKind): BullMQAdapter {
  const adapter = new BullMQAdapter(runner.queue(kind), { description: QUEUE_DESCRIPTIONS[kind] });
  adapter.setFormatter("name", (job) => {
    const reason = reasonOf(kind, job.data);
    return reason === "" ? titleOf(kind, job.data) : `${titleOf(kind, job.data)} (${reason})`;
  });
  adapter.setFormatter("progress", withPercentage);
  return adapter;
}

function withPercentage(progress: unknown): unknown {
  if (typeof progress !== "object" || progress === null) return progress;
  const { rowsDone, rowsTotal } = progress as JobProgress;
  if (rowsDone === undefined || !rowsTotal) return progress;
  return { progress: Math.floor((100 * rowsDone) / rowsTotal), ...progress };
}
