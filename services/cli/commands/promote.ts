/** promote: makes a fed incarnation the live one. Refused while it is behind in any epoch of the log. */
import { EXIT } from "../../common/process/exit.ts";
import { type Arguments, numbers, positional, whole } from "../args.ts";
import { openContext, openLake } from "../context.ts";
import { print, printJson } from "../output.ts";

export async function run(args: Arguments): Promise<number> {
  return await remap(args, "promote");
}

/** Shared with rollback, which promotes what was live before. */
export async function remap(args: Arguments, op: "promote" | "rollback"): Promise<number> {
  const name = positional(args, 0, "collection");
  const [, incarnation] = args.positionals;
  const db = whole(args, "db", 0, 15) ?? 0;
  const context = await openContext(args, "cli");
  const { lake, close } = await openLake(context, "cli");
  try {
    const withoutEpochs = numbers(args, "without-epoch");
    const command =
      op === "promote"
        ? { op, db, name, withoutEpochs, ...(incarnation === undefined ? {} : { incarnation }) }
        : { op, db, name, withoutEpochs };
    const mapping = JSON.parse(await lake.alter(command)) as { live: string; fed: string[] };
    if (context.json) printJson(mapping);
    else print(`${db}/${name} is now ${mapping.live}; still fed: ${mapping.fed.join(", ") || "none"}`);
    return EXIT.ok;
  } finally {
    await close();
  }
}
