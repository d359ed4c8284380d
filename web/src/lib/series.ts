// Numbers over time, for charts and sparklines.

/** Samples of several values at ascending times, in typed arrays; the oldest are overwritten. */
export class Series {
  readonly #capacity: number;
  readonly #times: Float64Array;
  readonly #columns: Float64Array[];
  #end = 0;

  constructor(columns: number, capacity: number) {
    this.#capacity = capacity;
    this.#times = new Float64Array(capacity);
    this.#columns = Array.from({ length: columns }, () => new Float64Array(capacity));
  }

  get length(): number {
    return Math.min(this.#end, this.#capacity);
  }

  /** Milliseconds since 1970 of the newest sample. */
  get newestTime(): number | undefined {
    return this.#end === 0 ? undefined : this.#times[(this.#end - 1) % this.#capacity];
  }

  /** Appends a sample; one of the newest time replaces it, an earlier one is dropped. */
  push(time: number, values: readonly number[]): void {
    const newest = this.newestTime;
    if (newest !== undefined && time < newest) return;
    if (newest !== time) this.#end += 1;
    const place = (this.#end - 1) % this.#capacity;
    this.#times[place] = time;
    this.#columns.forEach((column, index) => (column[place] = values[index] ?? Number.NaN));
  }

  /** The newest value of a column. */
  newest(column: number): number | undefined {
    const value = this.#columns[column]?.[(this.#end - 1) % this.#capacity];
    return this.#end === 0 || value === undefined || Number.isNaN(value) ? undefined : value;
  }

  /** Mean of a column over `from` ≤ time < `to`; undefined where nothing was sampled. */
  mean(column: number, from: number, to: number): number | undefined {
    let [sum, count] = [0, 0];
    const values = this.#columns[column];
    for (let index = Math.max(0, this.#end - this.#capacity); values && index < this.#end; index += 1) {
      const place = index % this.#capacity;
      const time = this.#times[place] as number;
      const value = values[place] as number;
      if (time < from || time >= to || Number.isNaN(value)) continue;
      sum += value;
      count += 1;
    }
    return count === 0 ? undefined : sum / count;
  }

  /** Times in seconds and the columns asked for, from `since` (milliseconds) on, as uPlot takes them. */
  table(columns: readonly number[], since: number): (number | null)[][] {
    const table: (number | null)[][] = Array.from({ length: columns.length + 1 }, () => []);
    for (let index = Math.max(0, this.#end - this.#capacity); index < this.#end; index += 1) {
      const place = index % this.#capacity;
      const time = this.#times[place] as number;
      if (time < since) continue;
      table[0]?.push(time / 1000);
      columns.forEach((column, row) => {
        const value = this.#columns[column]?.[place] ?? Number.NaN;
        table[row + 1]?.push(Number.isNaN(value) ? null : value);
      });
    }
    return table;
  }

  clear(): void {
    this.#end = 0;
  }
}
