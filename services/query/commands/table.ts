/**
 * The command table (schemas/resp-commands.json), read once and checked: COMMAND answers from it, the
 * registry takes arities and flags from it, and its option notes are what a client reads about options of
 * Redis that VexLake keeps, ignores with reason, or refuses.
 */
import { readFileSync } from "node:fs";
import { z } from "zod";

const optionSchema = z.strictObject({
  token: z.string(),
  /** kept: does what Redis does · no-effect: accepted, its meaning holds without doing anything · refused */
  status: z.enum(["kept", "no-effect", "refused"]),
  note: z.string(),
});

const rowSchema = z.strictObject({
  name: z.string(),
  arity: z.number().int(),
  flags: z.array(z.string()),
  /** first key, last key, step; 0 0 0 without keys */
  keys: z.tuple([z.number(), z.number(), z.number()]),
  group: z.string(),
  since: z.string(),
  summary: z.string(),
  syntax: z.string(),
  complexity: z.string(),
  options: z.array(optionSchema).default([]),
  notes: z.array(z.string()).default([]),
});

const tableSchema = z.strictObject({ commands: z.array(rowSchema) });

export type CommandRow = z.infer<typeof rowSchema>;

const FILE = new URL("../../../schemas/resp-commands.json", import.meta.url);

export const commandTable: readonly CommandRow[] = tableSchema.parse(
  JSON.parse(readFileSync(FILE, "utf8")),
).commands;

export const commandRows: ReadonlyMap<string, CommandRow> = new Map(
  commandTable.map((row) => [row.name, row]),
);

/** What an option of a command means here. The table must have it: an option without a note is a defect. */
export function optionNote(command: string, token: string): string {
  const option = commandRows.get(command)?.options.find((candidate) => candidate.token === token);
  if (option === undefined) throw new Error(`the command table says nothing of ${token} of ${command}`);
  return option.note;
}
