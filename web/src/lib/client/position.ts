// A place in the hub's log, `epoch:offset`: everything up to that offset lies behind.

export type Position = string;

const SHAPE = /^([0-9a-f]+):([0-9]+)$/i;

/** The offset, or nothing if this is no position. */
export function offsetOf(position: Position): number | undefined {
  const digits = SHAPE.exec(position)?.[2];
  return digits === undefined ? undefined : Number(digits);
}

export function isPosition(value: unknown): value is Position {
  return typeof value === "string" && SHAPE.test(value);
}

/** Whether both belong to the same history. */
export function isSameEpoch(one: Position, other: Position): boolean {
  return epochOf(one) === epochOf(other);
}

/** The later one; of two histories the second. */
export function later(before: Position | undefined, now: Position): Position {
  if (before === undefined || !isSameEpoch(before, now)) return now;
  return (offsetOf(now) ?? 0) > (offsetOf(before) ?? 0) ? now : before;
}

/** How many offsets lie from one to the other, both counted, if they belong to the same history. */
export function offsetsBetween(from: Position, to: Position): number | undefined {
  if (!isSameEpoch(from, to)) return undefined;
  return Math.max(0, (offsetOf(to) ?? 0) - (offsetOf(from) ?? 0) + 1);
}

function epochOf(position: Position): string {
  return position.slice(0, position.indexOf(":"));
}
