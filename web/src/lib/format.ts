// Numbers, sizes and times as people read them.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"] as const;

/** 1234567 → "1,234,567"; 1.234 → "1.2"; what is not known → "—", never 0. */
export function number(value: number | undefined): string {
  if (value === undefined || !Number.isFinite(value)) return "—";
  const digits = Math.abs(value) < 100 && !Number.isInteger(value) ? 1 : 0;
  return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** 12345678 → "12.3 M", for places where every digit would be noise. */
export function short(value: number | undefined): string {
  if (value === undefined || !Number.isFinite(value)) return "—";
  for (const [limit, unit] of [
    [1e9, "G"],
    [1e6, "M"],
    [1e4, "k"],
  ] as const) {
    if (Math.abs(value) >= limit) return `${(value / (unit === "k" ? 1e3 : limit)).toFixed(1)} ${unit}`;
  }
  return number(value);
}

/** 1536 → "1.5 KiB". */
export function bytes(value: number | undefined): string {
  if (value === undefined || !Number.isFinite(value)) return "—";
  let size = value;
  let unit = 0;
  while (Math.abs(size) >= 1024 && unit < UNITS.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${unit === 0 || size >= 100 ? Math.round(size) : size.toFixed(1)} ${UNITS[unit]}`;
}

/** Seconds as the two largest units: 93784 → "1 d 2 h". */
export function duration(seconds: number | undefined): string {
  if (seconds === undefined || !Number.isFinite(seconds)) return "—";
  const whole = Math.max(0, Math.floor(seconds));
  const parts = [
    [Math.floor(whole / 86400), "d"],
    [Math.floor(whole / 3600) % 24, "h"],
    [Math.floor(whole / 60) % 60, "min"],
    [whole % 60, "s"],
  ] as const;
  const first = parts.findIndex(([amount]) => amount > 0);
  if (first < 0) return "0 s";
  return parts
    .slice(first, first + 2)
    .filter(([amount]) => amount > 0)
    .map(([amount, unit]) => `${amount} ${unit}`)
    .join(" ");
}

/** How long ago, one unit: "12 min ago"; a clock that runs ahead is "just now". */
export function ago(milliseconds: number): string {
  const seconds = Math.floor(milliseconds / 1000);
  if (seconds < 2) return "just now";
  return `${duration(seconds).split(" ").slice(0, 2).join(" ")} ago`;
}

/** The time of day with milliseconds, in the reader's zone; a text that is no time comes back as it is. */
export function clock(time: string): string {
  const moment = new Date(time);
  if (Number.isNaN(moment.getTime())) return time;
  const milliseconds = String(moment.getMilliseconds()).padStart(3, "0");
  return `${moment.toLocaleTimeString("en-GB")}.${milliseconds}`;
}

/** Date and time of day, in the reader's zone. */
export function moment(time: string): string {
  const parsed = new Date(time);
  if (Number.isNaN(parsed.getTime())) return time;
  return parsed.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });
}

/** 2 → "2 nodes did not answer". */
export function missing(nodes: number): string {
  return `${number(nodes)} ${nodes === 1 ? "node" : "nodes"} did not answer`;
}
