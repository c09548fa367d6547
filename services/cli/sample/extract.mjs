/*
 * Prose out of documentation: markdown files, Rust doc comments, doc comments of TypeScript declarations.
 *
 * Each reader answers blocks {title, text}: a paragraph without markup, and what it is about (the heading
 * above it, or the item that its comment describes). Code examples, tables, badges and link targets go:
 * they are not what one searches documentation by. This is a reader of prose, not a markdown parser.
 */

/** Paragraphs of a markdown text; `topic` is the title until the first heading. */
export function markdownBlocks(markdown, topic) {
  return paragraphs(markdown.split("\n"), topic, true);
}

/** Doc comments of a Rust source: outer (`///`, on the item below) and inner (`//!`, on the module). */
export function rustBlocks(source, moduleName) {
  const blocks = [];
  const lines = source.split("\n");
  let comment = [];
  let marker;
  const close = (next) => {
    if (comment.length === 0) return;
    const title = marker === "//!" ? moduleName : (rustItem(lines, next) ?? moduleName);
    blocks.push(...named(paragraphs(comment, title, false)));
    comment = [];
  };
  for (let i = 0; i <= lines.length; i++) {
    const [, found, text] = /^\s*(\/\/[/!])(?!\/)(.*)$/.exec(lines[i] ?? "") ?? [];
    if (found !== marker) close(i);
    marker = found;
    if (found !== undefined) comment.push(text.replace(/^ /, ""));
  }
  return blocks;
}

/** Doc comments (`/**`) of a TypeScript declaration file. */
export function declarationBlocks(source, fileName) {
  const blocks = [];
  for (const match of source.matchAll(/\/\*\*([\s\S]*?)\*\//g)) {
    if (/@licen[cs]e|copyright|eslint-/i.test(match[1])) continue;
    const after = source.slice(match.index + match[0].length, match.index + match[0].length + 200);
    const lines = match[1].split("\n").map((line) => line.replace(/^\s*\*? ?/, ""));
    blocks.push(...named(paragraphs(tagsToProse(lines), declaredName(after) ?? fileName, false)));
  }
  return blocks;
}

/** `@param size - how many` → "size how many" as a paragraph of its own; examples go. */
function tagsToProse(lines) {
  const prose = [];
  let inExample = false;
  for (const line of lines) {
    const [, tag, rest] = /^\s*@(\w+)\s*(.*)$/.exec(line) ?? [];
    if (tag !== undefined) {
      inExample = tag === "example" || tag === "see" || tag === "since" || tag === "internal";
      prose.push("", inExample ? "" : rest.replace(/^\{[^}]*\}\s*/, "").replace(/^(\S+)\s+-\s+/, "$1 "));
    } else if (!inExample) {
      prose.push(line);
    }
  }
  return prose.map((line) => line.replace(/\{@\w+\s+([^}|]*?)\s*(?:\|[^}]*)?\}/g, "$1"));
}

/** A comment's first paragraph begins with the name of its item, which is half of its meaning. */
function named(blocks) {
  return blocks.map((block, i) => (i === 0 ? { ...block, text: `${block.title}: ${block.text}` } : block));
}

const RUST_ITEM = /\b(?:fn|struct|enum|union|trait|mod|type|const|static|macro_rules!)\s+([A-Za-z_]\w*)/;
/** Attributes and further comments may stand between a doc comment and its item. */
const RUST_ITEM_LINES_MAX = 12;

function rustItem(lines, from) {
  for (const line of lines.slice(from, from + RUST_ITEM_LINES_MAX)) {
    const text = line.trim();
    if (text === "" || text.startsWith("#[") || text.startsWith("//")) continue;
    // A variant or a field has no keyword.
    return (RUST_ITEM.exec(text) ?? /^(?:pub(?:\([^)]*\))?\s+)?([A-Za-z_]\w*)\s*[:,({]/.exec(text))?.[1];
  }
  return undefined;
}

function declaredName(after) {
  const modifiers =
    /^\s*(?:(?:export|default|declare|abstract|readonly|static|public|protected|async|get|set)\s+)*/;
  const rest = after.replace(modifiers, "");
  return /^(?:(?:function|class|interface|type|const|let|var|enum|namespace|module)\s+)?["']?([A-Za-z_$][\w$.-]*)/.exec(
    rest,
  )?.[1];
}

/** Paragraphs and list items of markdown lines. `retitle`: headings become the title of what follows. */
function paragraphs(lines, topic, retitle) {
  const blocks = [];
  let title = topic;
  let open = [];
  let fence;
  const close = () => {
    const text = plain(open.join(" "));
    if (text !== "") blocks.push({ title, text });
    open = [];
  };
  for (const line of lines) {
    const [, mark] = /^\s*(```+|~~~+)/.exec(line) ?? [];
    if (fence !== undefined) {
      if (mark?.startsWith(fence)) fence = undefined;
      continue;
    }
    if (mark !== undefined) {
      close();
      fence = mark.slice(0, 3);
      continue;
    }
    const [, heading] = /^\s{0,3}#{1,6}\s+(.*?)#*$/.exec(line) ?? [];
    if (heading !== undefined) {
      close();
      if (retitle) title = plain(heading) || topic;
    } else if (isNoProse(line)) {
      close();
    } else {
      if (/^\s*([-*+]|\d+[.)])\s/.test(line)) close();
      open.push(line.replace(/^\s*([-*+>]|\d+[.)])\s+/, ""));
    }
  }
  close();
  return blocks;
}

/** Blank lines, rules, tables, link definitions, indented code. */
function isNoProse(line) {
  return /^\s*$|^\s*([-=*_]\s*){3,}$|^\s*\||^\s*\[[^\]]+\]:|^( {4}|\t)\s*[^\s*+\-\d]/.test(line);
}

/** Text of a markdown paragraph: no markup, one blank between words. */
function plain(markdown) {
  return markdown
    .replace(/<!--[\s\S]*?-->/g, " ")
    .replace(/!\[[^\]]*\](\([^)]*\)|\[[^\]]*\])/g, " ")
    .replace(/\[([^\]]*)\](\([^)]*\)|\[[^\]]*\])/g, "$1")
    .replace(/\[([^\]]*)\]/g, "$1")
    .replace(/<\/?[A-Za-z][^>]*>/g, " ")
    .replace(/https?:\/\/\S+/g, " ")
    .replace(/[`*~]+|(?<=\s)_+|_+(?=\s|$)/g, "")
    .replace(/&nbsp;/g, " ")
    .replace(/&lt;/g, "<")
    .replace(/&gt;/g, ">")
    .replace(/&amp;/g, "&")
    .replace(/\s+/g, " ")
    .trim();
}
