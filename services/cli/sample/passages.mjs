/*
 * Paragraphs → passages of 250 to 900 characters (40 to 150 words): what one reads as one answer.
 *
 * Paragraphs are taken in order. A passage closes when the next paragraph would overfill it, or when the
 * topic changes and it is long enough. A longer paragraph is cut at the ends of sentences. What stays too
 * short in the end is dropped, as is text that is hardly words (symbol lists, other scripts, hex).
 */

/** Shorter passages are names and "returns the length": many of them are alike. */
const PASSAGE_CHARS_MIN = 250;
/** Longer ones are about several things, and their vector about none. */
const PASSAGE_CHARS_MAX = 900;
/** The share of ASCII letters and blanks below which text is no English prose. */
const PROSE_SHARE_MIN = 0.75;

/** Passages {title, text} of one file's blocks. `seen` holds the paragraphs met so far, in any file. */
export function cutPassages(blocks, seen) {
  const passages = [];
  let open;
  const close = () => {
    if (open !== undefined && open.text.length >= PASSAGE_CHARS_MIN && isProse(open.text))
      passages.push(open);
    open = undefined;
  };
  for (const { title, text } of blocks) {
    if (isKnown(text, seen)) continue;
    for (const piece of cutAtSentences(text)) {
      const full = open !== undefined && open.text.length + 1 + piece.length > PASSAGE_CHARS_MAX;
      const elsewhere = open !== undefined && open.title !== title && open.text.length >= PASSAGE_CHARS_MIN;
      if (full || elsewhere) close();
      if (open === undefined) open = { title, text: piece };
      else open.text += `\n${piece}`;
    }
  }
  close();
  return passages;
}

/** Whether the paragraph was met before, whatever its case, blanks and punctuation; notes it. */
function isKnown(text, seen) {
  const words = text
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, " ")
    .trim();
  if (words === "" || seen.has(words)) return true;
  seen.add(words);
  return false;
}

function cutAtSentences(text) {
  if (text.length <= PASSAGE_CHARS_MAX) return [text];
  const pieces = [];
  let open = "";
  for (const sentence of text.split(/(?<=[.!?])\s+/)) {
    // A "sentence" beyond the limit is a table or a listing in disguise.
    if (sentence.length > PASSAGE_CHARS_MAX) continue;
    if (open !== "" && open.length + 1 + sentence.length > PASSAGE_CHARS_MAX) {
      pieces.push(open);
      open = "";
    }
    open = open === "" ? sentence : `${open} ${sentence}`;
  }
  return open === "" ? pieces : [...pieces, open];
}

function isProse(text) {
  const letters = text.match(/[A-Za-z\s]/g)?.length ?? 0;
  return letters / text.length >= PROSE_SHARE_MIN;
}
