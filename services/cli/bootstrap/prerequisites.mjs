/*
 * What must be on the machine before anything can be built: Node, npm, Rust, a C linker; and
 * what decides the default log: Java and Maven.
 *
 * 1. Probe the versions. 2. `missingPrerequisites` (pure) turns the findings into a list of
 * {what, install}. 3. `requirePrerequisites` prints all of them at once and ends with exit code
 * 3, so that a user fixes everything in one go.
 */
import { existsSync, readFileSync } from "node:fs";
import { EXIT, LauncherError } from "./errors.mjs";
import { execute, onPath } from "./exec.mjs";

export const NODE_MAJOR_MIN = 18;
export const RUST_MIN = [1, 94];
export const JAVA_MAJOR_MIN = 17;

/** Numbers of the first dotted version in a text: "rustc 1.95.0 (…)" → [1, 95, 0]. */
export function parseVersion(text) {
  const match = /(\d+)(?:\.(\d+))?(?:\.(\d+))?/.exec(text ?? "");
  return match
    ? match
        .slice(1)
        .filter((part) => part !== undefined)
        .map(Number)
    : undefined;
}

export function atLeast(version, minimum) {
  if (!version) return false;
  for (let i = 0; i < minimum.length; i += 1) {
    const part = version[i] ?? 0;
    if (part !== minimum[i]) return part > minimum[i];
  }
  return true;
}

/** Which package manager's words to use: apt, dnf, pacman, apk, brew or undefined. */
export function packageManager(platform = process.platform, has = (name) => onPath(name) !== undefined) {
  if (platform === "darwin") return "brew";
  return ["apt-get", "dnf", "pacman", "apk"].find(has);
}

const INSTALL = {
  rust: {
    brew: "brew install rustup && rustup-init -y",
    "apt-get": "sudo apt-get install -y rustup && rustup default stable",
    dnf: "sudo dnf install -y rustup && rustup-init -y",
    pacman: "sudo pacman -S --needed rustup && rustup default stable",
  },
  linker: {
    brew: "xcode-select --install",
    "apt-get": "sudo apt-get install -y build-essential",
    dnf: "sudo dnf install -y gcc",
    pacman: "sudo pacman -S --needed base-devel",
  },
  node: {
    brew: "brew install node",
    "apt-get": "sudo apt-get install -y nodejs npm",
    dnf: "sudo dnf install -y nodejs npm",
    pacman: "sudo pacman -S --needed nodejs npm",
  },
  java: {
    brew: "brew install openjdk@17 maven",
    "apt-get": "sudo apt-get install -y openjdk-17-jre-headless maven",
    dnf: "sudo dnf install -y java-17-openjdk-headless maven",
    pacman: "sudo pacman -S --needed jre17-openjdk-headless maven",
  },
  redis: {
    brew: "brew install redis",
    "apt-get": "sudo apt-get install -y redis-server",
    dnf: "sudo dnf install -y redis",
    pacman: "sudo pacman -S --needed redis",
  },
};

const COMMON_NAME = {
  rust: "rustup, then `rustup default stable`",
  linker: "gcc or clang",
  node: "nodejs and npm",
  java: "a Java 17 runtime and maven",
  redis: "redis or valkey",
};

/** The install line for a part on this platform; a sentence where we know none. */
export function installLine(part, manager = packageManager()) {
  return INSTALL[part]?.[manager] ?? `with your system's package manager: ${COMMON_NAME[part]}`;
}

/**
 * Pure. `found` = {platform, libc, node, npm, cargo, linker}: versions as number lists, npm and
 * linker as paths. Answers what is missing with the exact line that installs it.
 */
export function missingPrerequisites(found, manager) {
  const missing = [];
  if (found.platform === "linux" && found.libc === "musl") {
    missing.push({
      what: "a glibc system: the pinned Node binary and two codecs are not built for musl (Alpine)",
      install: "use a Debian, Ubuntu or Fedora machine or image",
    });
  }
  if (!["linux", "darwin"].includes(found.platform)) {
    missing.push({ what: `Linux or macOS (this is ${found.platform})`, install: "on Windows use WSL 2" });
  }
  if (!atLeast(found.node, [NODE_MAJOR_MIN])) {
    missing.push({
      what: `Node >= ${NODE_MAJOR_MIN} (found ${show(found.node)})`,
      install: installLine("node", manager),
    });
  }
  if (!found.npm) missing.push({ what: "npm", install: installLine("node", manager) });
  if (!atLeast(found.cargo, RUST_MIN)) {
    const update = found.cargo && found.rustup ? "rustup update stable" : installLine("rust", manager);
    missing.push({ what: `Rust >= ${RUST_MIN.join(".")} (found ${show(found.cargo)})`, install: update });
  }
  if (!found.linker) missing.push({ what: "a C linker (cc)", install: installLine("linker", manager) });
  return missing;
}

function show(version) {
  return version ? version.join(".") : "none";
}

/** glibc or musl, told by Node's own report; undefined away from Linux. */
function libc() {
  if (process.platform !== "linux") return undefined;
  const header = process.report?.getReport?.().header;
  return header?.glibcVersionRuntime ? "glibc" : "musl";
}

export async function findPrerequisites(root) {
  // In the checkout's folder, because rustup chooses the toolchain by rust-toolchain.toml.
  const cargo = onPath("cargo") ? await execute("cargo", ["--version"], { cwd: root }) : undefined;
  return {
    platform: process.platform,
    libc: libc(),
    node: parseVersion(process.versions.node),
    npm: onPath("npm"),
    cargo: cargo?.code === 0 ? parseVersion(cargo.stdout) : undefined,
    cargoMessage: cargo && cargo.code !== 0 ? cargo.stderr.trim() : undefined,
    rustup: onPath("rustup"),
    linker: onPath("cc") ?? onPath("clang") ?? onPath("gcc"),
  };
}

export async function requirePrerequisites(root) {
  const found = await findPrerequisites(root);
  const missing = missingPrerequisites(found, packageManager());
  if (missing.length === 0) return found;
  const lines = missing.map((part) => `  - ${part.what}\n      ${part.install}`);
  const channel = existsSync(`${root}/rust-toolchain.toml`)
    ? /channel = "([^"]+)"/.exec(readFileSync(`${root}/rust-toolchain.toml`, "utf8"))?.[1]
    : undefined;
  const said = found.cargoMessage
    ? `\ncargo says: ${found.cargoMessage}\n(the checkout pins Rust ${channel}: \`rustup toolchain install ${channel}\`)`
    : "";
  throw new LauncherError(EXIT.prerequisite, `missing on this machine:\n${lines.join("\n")}${said}`);
}

/** {java, javaVersion, maven, repository, usable, why}: can the launcher run Kafka itself? */
export async function findKafkaRuntime(env = process.env, jarsCached = false) {
  const java =
    env.JAVA_HOME && existsSync(`${env.JAVA_HOME}/bin/java`) ? `${env.JAVA_HOME}/bin/java` : onPath("java");
  const printed = java ? await execute(java, ["-version"]) : undefined;
  const javaVersion = printed?.code === 0 ? parseVersion(printed.stderr) : undefined;
  return {
    java,
    javaVersion,
    ...judgeKafkaRuntime({
      javaVersion,
      maven: onPath("mvn"),
      repository: env.MAVEN_REPOSITORY_URL,
      jarsCached,
    }),
  };
}

/** Pure part of the above; `why` completes the sentence "log: … because …". */
export function judgeKafkaRuntime({ javaVersion, maven, repository, jarsCached }) {
  if (!atLeast(javaVersion, [JAVA_MAJOR_MIN])) {
    return { usable: false, why: `Java >= ${JAVA_MAJOR_MIN} was not found (${installLine("java")})` };
  }
  const from = jarsCached
    ? "its jars are cached"
    : maven
      ? "Maven is present"
      : repository
        ? "MAVEN_REPOSITORY_URL is set"
        : undefined;
  if (!from) return { usable: false, why: `Maven was not found (${installLine("java")})` };
  return { usable: true, why: `Java ${javaVersion[0]} is present and ${from}` };
}
