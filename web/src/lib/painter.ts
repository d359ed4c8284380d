// One place that paints: at most once a screen's frame, and nothing while nobody looks.

interface Frames {
  request(callback: (now: number) => void): void;
  isHidden(): boolean;
  onVisible(callback: () => void): void;
}

const BROWSER: Frames = {
  request: (callback) => void requestAnimationFrame(callback),
  isHidden: () => document.hidden,
  onVisible: (callback) =>
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) callback();
    }),
};

/** Paints one thing, no more often than was agreed. */
export interface Brush {
  /** Something changed: paint when the time has come. */
  touch(): void;
  /** Never paint again. */
  stop(): void;
}

interface Work {
  paint: () => void;
  interval: number;
  due: number;
  touched: boolean;
}

/** Streams touch, screens paint: ten thousand events a second are sixty frames. */
export class Painter {
  readonly #frames: Frames;
  readonly #works = new Set<Work>();
  #requested = false;

  constructor(frames: Frames = BROWSER) {
    this.#frames = frames;
    frames.onVisible(() => this.#request());
  }

  /** A brush that paints at most every `interval` milliseconds; 0 is every frame of the screen. */
  brush(interval: number, paint: () => void): Brush {
    const work: Work = { paint, interval, due: 0, touched: false };
    this.#works.add(work);
    return {
      touch: () => {
        work.touched = true;
        this.#request();
      },
      stop: () => void this.#works.delete(work),
    };
  }

  #request(): void {
    if (this.#requested || this.#frames.isHidden()) return;
    if (![...this.#works].some((work) => work.touched)) return;
    this.#requested = true;
    this.#frames.request((now) => this.#flush(now));
  }

  #flush(now: number): void {
    this.#requested = false;
    for (const work of this.#works) {
      if (!work.touched || now < work.due) continue;
      work.touched = false;
      work.due = now + work.interval;
      work.paint();
    }
    this.#request();
  }
}

/** The page's own. */
let painter: Painter | undefined;
export function brush(interval: number, paint: () => void): Brush {
  painter ??= new Painter();
  return painter.brush(interval, paint);
}
