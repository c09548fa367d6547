/**
 * Reading the arguments of one request: as bytes, text, upper-case words and integers, by Redis's rules.
 * Integers are strict decimal (no blanks, no plus, no leading zeros); anything else is the caller's error to
 * name.
 */
import { argumentBytes, argumentCount, type Request } from "../resp/parser.ts";

const STRICT_INTEGER = /^(0|-?[1-9][0-9]{0,17})$/;
/** Decimal, exponent and the infinities that strtod takes; hex floats and NaN are refused. */
const DECIMAL = /^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$/;

export class Arguments {
  readonly request: Request;
  readonly count: number;

  constructor(request: Request) {
    this.request = request;
    this.count = argumentCount(request);
  }

  /** The request that begins at an argument of this one, as the command that it names reads it. */
  from(index: number): Arguments {
    const { frame, spans } = this.request;
    return new Arguments({ frame, spans: spans.slice(2 * index) });
  }

  /** A view into the frame of the request. */
  bytes(index: number): Buffer {
    return argumentBytes(this.request, index);
  }

  text(index: number): string {
    return this.bytes(index).toString();
  }

  /** For option words: compared without regard to case. */
  word(index: number): string {
    return this.bytes(index).toString("latin1").toUpperCase();
  }

  /** A whole number that fits a double exactly, or undefined. */
  integer(index: number): number | undefined {
    if (index >= this.count) return undefined;
    const text = this.bytes(index).toString("latin1");
    if (!STRICT_INTEGER.test(text)) return undefined;
    const value = Number(text);
    return Number.isSafeInteger(value) ? value : undefined;
  }

  /** A finite decimal number (a threshold, never the component of a vector), or undefined. */
  decimal(index: number): number | undefined {
    if (index >= this.count) return undefined;
    const text = this.bytes(index).toString("latin1");
    if (!DECIMAL.test(text)) return undefined;
    const value = Number(text);
    return Number.isFinite(value) ? value : undefined;
  }
}
