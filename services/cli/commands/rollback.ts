/** rollback: makes the incarnation live again that was live before the last promotion. */
import type { Arguments } from "../args.ts";
import { remap } from "./promote.ts";

export async function run(args: Arguments): Promise<number> {
  return await remap(args, "rollback");
}
