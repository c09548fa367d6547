/** flush: asks the running ingest to flush a collection now, and says what was committed. */
import { EXIT } from "../../common/process/exit.ts";
import { type Arguments, positional, whole } from "../args.ts";
import { openContext } from "../context.ts";
import { printJson } from "../output.ts";
import { serverCall } from "../server.ts";

export async function run(args: Arguments): Promise<number> {
  const name = positional(args, 0, "collection");
  const context = await openContext(args, "cli");
  const db = whole(args, "db", 0, 15) ?? 0;
  printJson(
    await serverCall(context, "POST", `/api/v1/flush?db=${db}&collection=${encodeURIComponent(name)}`),
  );
  return EXIT.ok;
}
