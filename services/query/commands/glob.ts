/**
 * Redis's glob patterns over bytes: `*` any run, `?` one byte, `[abc]` `[^a]` `[a-z]` sets, `\` takes the
 * next byte as it is. An unclosed set ends with the pattern, as in Redis.
 *
 * Only the last `*` is ever gone back to, so the time is O(pattern × text): a pattern of many stars cannot
 * stall the loop, as it can where every star branches.
 */
const STAR = 0x2a;
const QUESTION = 0x3f;
const OPEN = 0x5b;
const CLOSE = 0x5d;
const CARET = 0x5e;
const DASH = 0x2d;
const BACKSLASH = 0x5c;

export function matchGlob(pattern: Uint8Array, text: Uint8Array): boolean {
  let p = 0;
  let t = 0;
  let starAt = -1;
  let starText = 0;
  while (t < text.length) {
    if (p < pattern.length && pattern[p] === STAR) {
      starAt = p;
      starText = t;
      p += 1;
      continue;
    }
    const next = p < pattern.length ? matchOne(pattern, p, text[t] as number) : -1;
    if (next !== -1) {
      p = next;
      t += 1;
    } else if (starAt !== -1) {
      starText += 1;
      t = starText;
      p = starAt + 1;
    } else {
      return false;
    }
  }
  while (p < pattern.length && pattern[p] === STAR) p += 1;
  return p === pattern.length;
}

/** Where the pattern goes on after its element at `p` has matched `byte`, or -1. */
function matchOne(pattern: Uint8Array, p: number, byte: number): number {
  const element = pattern[p];
  if (element === QUESTION) return p + 1;
  if (element === OPEN) return matchSet(pattern, p + 1, byte);
  if (element === BACKSLASH && p + 1 < pattern.length) return pattern[p + 1] === byte ? p + 2 : -1;
  return element === byte ? p + 1 : -1;
}

function matchSet(pattern: Uint8Array, start: number, byte: number): number {
  let p = start;
  const negated = pattern[p] === CARET;
  if (negated) p += 1;
  let matched = false;
  while (p < pattern.length && pattern[p] !== CLOSE) {
    if (pattern[p] === BACKSLASH && p + 1 < pattern.length) p += 1;
    const from = pattern[p] as number;
    if (pattern[p + 1] === DASH && p + 2 < pattern.length && pattern[p + 2] !== CLOSE) {
      const to = pattern[p + 2] as number;
      if (byte >= Math.min(from, to) && byte <= Math.max(from, to)) matched = true;
      p += 3;
    } else {
      if (from === byte) matched = true;
      p += 1;
    }
  }
  return matched === negated ? -1 : Math.min(p + 1, pattern.length);
}
