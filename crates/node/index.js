// Loads the addon of this machine and turns its errors into errors with a code.
// The addon file is named by platform and architecture; VEXLAKE_CORE names another
// (the tests' debug build). Nothing else happens on this side.
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

const require = createRequire(import.meta.url);
const file =
  process.env.VEXLAKE_CORE ??
  fileURLToPath(new URL(`./vexlake.${process.platform}-${process.arch}.node`, import.meta.url));
const { Lake: Native } = require(file);

/** An error of the core: `code` says what to do, `fields` carries values. */
export class CoreError extends Error {
  constructor(code, message, fields, cause) {
    super(message, { cause });
    this.name = "CoreError";
    this.code = code;
    this.fields = fields;
  }
}

function translate(error) {
  if (error instanceof CoreError) return error;
  try {
    const { code, message, ...fields } = JSON.parse(error.message);
    return new CoreError(code, message, fields, error);
  } catch {
    // A panic, or a value that napi itself could not convert.
    return new CoreError("INTERNAL", error.message, {}, error);
  }
}

function calls(method) {
  return async (...args) => {
    try {
      return await method(...args);
    } catch (error) {
      throw translate(error);
    }
  };
}

const ignoreProgress = () => {};

export class Lake {
  #native;

  constructor(native) {
    this.#native = native;
  }

  static async open(options) {
    return new Lake(await calls(() => Native.open(JSON.stringify(options)))());
  }

  static doctor(panic) {
    try {
      return Native.doctor(panic);
    } catch (error) {
      throw translate(error);
    }
  }

  alter = calls((command) => this.#open().alter(JSON.stringify(command)));
  append = calls((batch) => this.#open().append(batch));
  flush = calls(async (incarnation) => JSON.parse(await this.#open().flush(incarnation)));
  refresh = calls((incarnation) => this.#open().refresh(incarnation));
  search = calls((requests) => this.#open().search(requests));
  get = calls((request) => this.#open().get(request));
  describe = calls((what) => this.#open().describe(JSON.stringify(what)));
  plan = calls((incarnation, options) => this.#open().plan(incarnation, options));
  run = calls((spec, onProgress, job, options) =>
    this.#open().run(spec, options ?? "{}", job, onProgress ?? ignoreProgress),
  );
  gc = calls((incarnation, options) => this.#open().gc(incarnation, options ?? "{}"));
  verify = calls((step) => this.#open().verify(step));

  metrics() {
    try {
      return this.#open().metrics();
    } catch (error) {
      throw translate(error);
    }
  }

  #open() {
    if (this.#native === undefined) throw new CoreError("UNAVAILABLE", "the lake is closed", {});
    return this.#native;
  }

  /** Lets go of the lake. Work under way finishes; the garbage collector frees the rest. */
  async close() {
    this.#native = undefined;
  }
}
