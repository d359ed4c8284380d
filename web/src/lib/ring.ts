// The newest items of an endless stream, each under its own number.

/** What can be looked at, not changed: items by their numbers, from `first` up to but not with `end`. */
export interface Numbered<T> {
  readonly first: number;
  readonly end: number;
  get(number: number): T | undefined;
}

/** Holds at most `capacity` items. Numbers only grow: an item keeps its number until it is overwritten. */
export class Ring<T> implements Numbered<T> {
  readonly #items: T[] = [];
  readonly #capacity: number;
  #end = 0;

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  /** The number of the oldest item held. */
  get first(): number {
    return this.#end - this.#items.length;
  }

  /** One more than the number of the newest item. */
  get end(): number {
    return this.#end;
  }

  get length(): number {
    return this.#items.length;
  }

  push(item: T): void {
    if (this.#items.length < this.#capacity) this.#items.push(item);
    else this.#items[this.#end % this.#capacity] = item;
    this.#end += 1;
  }

  /** The item of this number; undefined if it is not held. */
  get(number: number): T | undefined {
    if (number < this.first || number >= this.#end) return undefined;
    return this.#items[number % this.#capacity];
  }

  /** The newest `count` items, the oldest of them first. */
  newest(count: number): T[] {
    const items: T[] = [];
    for (let number = Math.max(this.first, this.#end - count); number < this.#end; number += 1) {
      items.push(this.#items[number % this.#capacity] as T);
    }
    return items;
  }

  /** The newest `count` items as they are now, under the same numbers. */
  snapshot(count: number): Numbered<T> {
    const items = this.newest(count);
    const end = this.#end;
    const first = end - items.length;
    return { first, end, get: (number) => items[number - first] };
  }

  /** Forgets all items. Numbers go on at nought, as everything does that counts in the stored places. */
  clear(): void {
    this.#items.length = 0;
    this.#end = 0;
  }
}
