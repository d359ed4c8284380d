// How far back a view looks.

export const RANGES = { "5m": 5, "15m": 15, "1h": 60 } as const;
export type Range = keyof typeof RANGES;
export const DEFAULT_RANGE: Range = "5m";

/** What the address says; anything else is the default. */
export function rangeOf(text: string | undefined): Range {
  return text !== undefined && Object.hasOwn(RANGES, text) ? (text as Range) : DEFAULT_RANGE;
}
