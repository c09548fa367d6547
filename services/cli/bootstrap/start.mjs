/*
 * `npm start`: from a fresh clone to a running lake, with Node built-ins only.
 *
 * 1. Check Node, Rust and the C linker; say the install line of whatever is missing (exit 3).
 * 2. Take the data directory's lock; install; choose log and job queue, and say why.
 * 3. Build the core once while Kafka's jars are fetched and the sample's corpus is cut.
 * 4. Adopt or reap what an earlier run left; start the broker, Redis, then one `vexlake up`.
 * 5. Run the tour (unless --no-sample); stay until Ctrl-C or SIGTERM; stop in order, exit 0.
 */
import { existsSync } from "node:fs";
import { join, relative } from "node:path";
import { buildAddon } from "./addon.mjs";
import { parseStartArgs, startHelp } from "./args.mjs";
import { chooseJobs, chooseLog, nameOfLog, rememberedForm, upArguments } from "./choice.mjs";
import { bringUp, reap } from "./components.mjs";
import { EXIT, LauncherError, main } from "./errors.mjs";
import { execute } from "./exec.mjs";
import { install, runtimeEnv, runtimeNode } from "./install.mjs";
import { dataLayout, ROOT } from "./paths.mjs";
import { choosePort } from "./ports.mjs";
import { requirePrerequisites } from "./prerequisites.mjs";
import { readJson, takeLock, writeJson } from "./processes.mjs";
import { Progress } from "./progress.mjs";
import { KAFKA_VERSION, kafkaJars, kafkaJarsCached, kafkaRuntime, redisRuntime } from "./provision.mjs";
import { LakeProcesses } from "./supervise.mjs";
import { runTour } from "./tour.mjs";
import { Up } from "./up.mjs";

const CLI = join(ROOT, "services", "cli", "main.ts");
const TOUR = join(ROOT, "services", "cli", "tour", "main.ts");
const CORPUS = join(ROOT, "services", "cli", "sample", "corpus.mjs");
/** What waiting for a stop signal answers. */
const STOPPED = Symbol("stopped");

async function start() {
  const options = parseStartArgs(process.argv.slice(2));
  if (options.help) {
    process.stdout.write(startHelp());
    return EXIT.ok;
  }
  const progress = new Progress();
  await requirePrerequisites(ROOT);
  const layout = dataLayout(options.dataDir);
  const release = takeLock(layout.launcherLock);
  try {
    await checkGivenPorts(options);
    await install(progress);
    return await run(options, layout, progress);
  } finally {
    release();
  }
}

/** A given port that is taken fails now, not after a four-minute build. */
async function checkGivenPorts({ port, httpPort }) {
  if (port !== undefined) await choosePort({ name: "RESP", given: port });
  if (httpPort !== undefined) await choosePort({ name: "HTTP", given: httpPort, taken: [port] });
}

async function run(options, layout, progress) {
  const say = (text) => progress.line(text);
  const log = chooseLog(options, readJson(layout.choice), await kafkaRuntime());
  const jobs = chooseJobs(options, redisRuntime());
  say(`store: ${options.s3 ?? relative(process.cwd(), layout.lake)}`);
  say(`log:   ${nameOfLog(log)}, because ${log.why}`);
  say(`jobs:  ${nameOfJobs(jobs)}, because ${jobs.why}`);

  const stopAsked = onStopSignal(say);
  const node = runtimeNode();
  const prepared = prepare(options, layout, log, progress, node);
  const early = await Promise.race([prepared, stopAsked]);
  if (early === STOPPED) return EXIT.ok;

  await reap("tour", layout, say);
  await reap("up", layout, say);
  const lake = new LakeProcesses(say);
  try {
    const engines = await startEngines(lake, log, jobs, layout, progress, say);
    // Engines are not left half started, so a stop that came meanwhile is looked at here.
    if ((await Promise.race([stopAsked, undefined])) === STOPPED) return EXIT.ok;
    const address = { brokers: log.brokers ?? engines.kafka?.address, redis: jobs.url ?? redisUrl(engines) };
    const args = upArguments({ options, dataDir: layout.base, log, ...address });
    // The banner and the tour are what a person reads here; VEXLAKE_LOGGING brings the log lines back.
    const quiet = { VEXLAKE_LOGGING: process.env.VEXLAKE_LOGGING ?? "error" };
    const env = { ...runtimeEnv(), ...quiet, VEXLAKE_CORE: early.addon, VEXLAKE_EMBED: early.embed };
    // A choice that led to no running log binds nobody: the next start may choose another one.
    const onReady = () => writeJson(layout.choice, rememberedForm(log));
    const up = new Up({ node, script: CLI, args, env, layout, onReady });
    const ready = await Promise.race([lake.addUp(up), stopAsked]);
    if (ready === STOPPED) return EXIT.ok;
    return await serve({ options, layout, lake, node, env, ready, stopAsked, brokers: address.brokers });
  } finally {
    await lake.stop();
    say("stopped");
  }
}

/** The tour, then staying until somebody or something ends it. */
async function serve({ options, layout, lake, node, env, ready, stopAsked, brokers }) {
  if (options.sample) {
    const args = ["--resp", ready.resp, "--http", ready.http, "--store", ready.store, "--log", ready.log];
    args.push("--data-dir", layout.base, ...(brokers ? ["--brokers", brokers] : []));
    const tour = await runTour({ node, script: TOUR, args, env, lake, layout });
    const outcome = await Promise.race([tour.exited, stopAsked, lake.ended]);
    await tour.stop();
    if (outcome === STOPPED) return EXIT.ok;
    if (options.exit) return outcome;
  } else if (options.exit) {
    return EXIT.ok;
  }
  const outcome = await Promise.race([stopAsked, lake.ended]);
  return outcome === STOPPED ? EXIT.ok : outcome;
}

/** The slow things of a first start, at the same time: the addon, Kafka's jars, the corpus. */
async function prepare(options, layout, log, progress, node) {
  for (const script of options.sample ? [CLI, TOUR, CORPUS] : [CLI]) {
    if (!existsSync(script)) throw new LauncherError(EXIT.internal, `${relative(ROOT, script)} is missing`);
  }
  let sourcesReady = () => {};
  const sources = new Promise((resolve) => {
    sourcesReady = resolve;
  });
  const [built] = await Promise.all([
    buildAddon({ profile: "fast", progress, onSources: sourcesReady }),
    log.kind === "own-kafka" ? fetchJars(progress) : undefined,
    options.sample ? sources.then(() => cutCorpus(layout, progress, node)) : undefined,
  ]);
  return built;
}

async function fetchJars(progress) {
  if (kafkaJarsCached()) return;
  const phase = progress.phase(`Kafka ${KAFKA_VERSION}`);
  await kafkaJars({ onProgress: (done, total) => phase.update(`jars ${done}/${total}`) });
  phase.done("jars ready");
}

/**
 * Cutting needs no core, so it overlaps the build; it begins when cargo has fetched the Rust sources,
 * whose documentation is part of it. Once cut, the corpus of a data directory stays.
 */
async function cutCorpus(layout, progress, node) {
  if (existsSync(join(layout.base, "sample", "passages.jsonl"))) return;
  const phase = progress.phase("sample corpus");
  const result = await execute(node, [CORPUS, "--data-dir", layout.base], { cwd: ROOT });
  const said = result.code === 0 ? result.stdout : result.stderr;
  const last = said.trim().split("\n").at(-1);
  if (result.code !== 0)
    throw new LauncherError(EXIT.internal, `the sample corpus could not be cut: ${last}`);
  phase.done(last);
}

/** Each engine joins `lake` as soon as it runs, so that a failure of the next one still stops it. */
async function startEngines(lake, log, jobs, layout, progress, say) {
  const engines = {};
  const add = async (name) => {
    const phase = progress.phase(name);
    engines[name] = await bringUp(name, layout, say);
    phase.done(`ready on ${engines[name].address}`);
    lake.addEngine(name, engines[name].supervised, async () => (await bringUp(name, layout, say)).supervised);
  };
  if (log.kind === "own-kafka") await add("kafka");
  if (jobs.kind === "own") await add("redis");
  return engines;
}

function redisUrl(engines) {
  return engines.redis ? `redis://${engines.redis.address}/0` : undefined;
}

function nameOfJobs(jobs) {
  if (jobs.kind === "in-process") return "in-process";
  return jobs.kind === "own" ? "BullMQ on a local Redis" : `BullMQ on ${new URL(jobs.url).host}`;
}

/** Resolves at the first SIGINT, SIGTERM or SIGHUP; later ones change nothing: stopping is under way. */
function onStopSignal(say) {
  return new Promise((resolve) => {
    let asked = false;
    for (const name of ["SIGINT", "SIGTERM", "SIGHUP"]) {
      process.on(name, () => {
        if (!asked) say(`${name}: stopping in order`);
        asked = true;
        resolve(STOPPED);
      });
    }
  });
}

await main(start);
