// What the browser keeps between visits. Storage may throw (private mode, full, forbidden): then nothing is kept.

const PREFIX = "pulsehub.";

/** What was kept under this name. */
export function recall(name: string): string | undefined {
  try {
    return localStorage.getItem(PREFIX + name) ?? undefined;
  } catch {
    return undefined;
  }
}

/** Keeps a text under this name; `undefined` forgets it. */
export function keep(name: string, text: string | undefined): void {
  try {
    if (text === undefined) localStorage.removeItem(PREFIX + name);
    else localStorage.setItem(PREFIX + name, text);
  } catch {
    // Then this visit remembers it, and the next one does not.
  }
}
