/*
 * The real components that launchers and tests start as child processes, in one import.
 * Each `start…` takes {dir, pids, …}, waits for readiness by the component's own protocol, and
 * answers its address with `supervised` and `stop()`; each `…Runtime()` says whether this machine
 * can run it, and why (not).
 */
export { KAFKA_VERSION, kafkaJars, kafkaJarsCached, kafkaRuntime, startKafka } from "./provision/kafka.mjs";
export { pythonOracles, pythonRuntime, pythonWith } from "./provision/python.mjs";
export { redisRuntime, startRedis } from "./provision/redis.mjs";
export {
  fetchSeaweed,
  fetchVersity,
  seaweedRuntime,
  startSeaweed,
  startVersity,
  TEST_BUCKET,
  TEST_CREDENTIALS,
  versityRuntime,
} from "./provision/s3.mjs";
