/*
 * The command lines of the launchers. Pure; an unknown option, a missing value or a value out of
 * range is a usage error (exit code 2): no option is accepted and ignored.
 */
import { EXIT, LauncherError } from "./errors.mjs";

const START = {
  "--log": { key: "log", values: ["kafka", "local"], help: "which log the launcher brings: kafka or local" },
  "--kafka": { key: "kafka", text: "brokers", help: "use this Kafka instead: host:port,host:port" },
  "--s3": { key: "s3", text: "url", help: "keep the lake at s3://bucket/prefix instead of a directory" },
  "--redis": { key: "redis", text: "url", help: "use this Redis for jobs: redis://host:port/db" },
  "--data-dir": { key: "dataDir", text: "path", help: "where everything local lies (default ./.vexlake)" },
  "--port": { key: "port", port: true, help: "RESP port (default 6380)" },
  "--http-port": { key: "httpPort", port: true, help: "HTTP port (default 8080)" },
  "--no-sample": { key: "sample", flag: false, help: "start empty: no sample data, no tour" },
  "--exit": { key: "exit", flag: true, help: "stop after the tour's report, with its exit code" },
  "--help": { key: "help", flag: true, help: "this text" },
};

/** Options of `npm start`; absent ones are undefined, except dataDir, sample, exit and help. */
export function parseStartArgs(argv) {
  const options = { dataDir: ".vexlake", sample: true, exit: false, help: false };
  const rest = [...argv];
  for (let argument = rest.shift(); argument !== undefined; argument = rest.shift()) {
    const [name, inline] = splitOnce(argument);
    const option = START[name];
    if (!option) throw usage(`unknown option ${argument}`);
    if (option.flag !== undefined) {
      if (inline !== undefined) throw usage(`${name} takes no value`);
      options[option.key] = option.flag;
      continue;
    }
    const value = inline ?? rest.shift();
    if (value === undefined || value === "" || (inline === undefined && value.startsWith("--"))) {
      throw usage(`${name} needs a value`);
    }
    options[option.key] = checkValue(name, option, value);
  }
  if (options.kafka !== undefined && options.log === "local") {
    throw usage("--kafka and --log local contradict each other");
  }
  return options;
}

function checkValue(name, option, value) {
  if (option.values && !option.values.includes(value)) {
    throw usage(`${name} is one of ${option.values.join(", ")}, not "${value}"`);
  }
  if (!option.port) return value;
  const port = Number(value);
  if (!/^\d+$/.test(value) || port < 1 || port > 65_535)
    throw usage(`${name} is a port from 1 to 65535, not "${value}"`);
  return port;
}

function splitOnce(argument) {
  const at = argument.indexOf("=");
  return argument.startsWith("--") && at > 0
    ? [argument.slice(0, at), argument.slice(at + 1)]
    : [argument, undefined];
}

function usage(message) {
  return new LauncherError(EXIT.usage, `${message} (npm start -- --help)`);
}

export function startHelp() {
  const rows = Object.entries(START).map(([name, option]) => {
    const value = option.values?.join("|") ?? option.text ?? (option.port ? "port" : undefined);
    return `  ${(value ? `${name} <${value}>` : name).padEnd(24)} ${option.help}`;
  });
  return `npm start -- [options]\n${rows.join("\n")}\n`;
}
