// Topics as a tree of their tokens, for a list that can be opened and closed.

/** As `/api/v1/topics` answers. */
export interface TopicInfo {
  topic: string;
  events: number;
  bytes: number;
  last: string;
  last_received: string;
  subscribers: number;
  /** Seconds. */
  kept_for: number;
}

/** One line of the list. */
export interface TreeRow {
  /** The tokens from the root, joined by dots. */
  path: string;
  token: string;
  depth: number;
  /** Whether topics lie below. */
  isBranch: boolean;
  isOpen: boolean;
  /** The topic of exactly this path, if there is one. */
  info: TopicInfo | undefined;
  /** Retained events of the topic and all below. */
  events: number;
  /** Events a second of the topic and all below, where two answers told. */
  rate: number | undefined;
}

/** The lines to show: branches in `open` show what is below them. `topics` is sorted by name. */
export function rows(
  topics: readonly TopicInfo[],
  open: ReadonlySet<string>,
  rate: (topic: string) => number | undefined,
): TreeRow[] {
  const root: Node = node("", -1);
  for (const info of topics) {
    let place = root;
    const path: string[] = [];
    for (const token of info.topic.split(".")) {
      path.push(token);
      let child = place.children.get(token);
      if (!child) {
        child = node(path.join("."), place.depth + 1);
        place.children.set(token, child);
      }
      child.events += info.events;
      const told = rate(info.topic);
      if (told !== undefined) child.rate = (child.rate ?? 0) + told;
      place = child;
    }
    place.info = info;
  }
  const shown: TreeRow[] = [];
  const visit = (place: Node) => {
    for (const [token, child] of place.children) {
      const { path, depth, info, events, rate } = child;
      const isBranch = child.children.size > 0;
      const isOpen = isBranch && open.has(path);
      shown.push({ path, token, depth, isBranch, isOpen, info, events, rate });
      if (isOpen) visit(child);
    }
  };
  visit(root);
  return shown;
}

interface Node {
  path: string;
  depth: number;
  children: Map<string, Node>;
  info: TopicInfo | undefined;
  events: number;
  rate: number | undefined;
}

function node(path: string, depth: number): Node {
  return { path, depth, children: new Map(), info: undefined, events: 0, rate: undefined };
}

/**
 * Events a second by topic, from two answers: how far the number of retained events rose. Retention lowers it, so a
 * topic that shrank tells nothing.
 */
export class Rates {
  #before: { at: number; events: Map<string, number> } | undefined;
  #rates = new Map<string, number>();

  /** Takes the answer that came at `now` (milliseconds). */
  take(topics: readonly TopicInfo[], now: number): void {
    const before = this.#before;
    this.#before = { at: now, events: new Map(topics.map(({ topic, events }) => [topic, events])) };
    if (!before || now <= before.at) return;
    this.#rates = new Map();
    for (const { topic, events } of topics) {
      const risen = events - (before.events.get(topic) ?? 0);
      if (risen >= 0) this.#rates.set(topic, (risen * 1000) / (now - before.at));
    }
  }

  of(topic: string): number | undefined {
    return this.#rates.get(topic);
  }
}
