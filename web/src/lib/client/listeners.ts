// Who wants to know of what. A listener that throws breaks neither the others nor the client.

export class Listeners<Kinds> {
  readonly #of = new Map<keyof Kinds, Set<(event: never) => void>>();

  constructor(private readonly reportError: (error: unknown) => void) {}

  /** Gives back how to stop listening. */
  on<K extends keyof Kinds>(kind: K, listener: (event: Kinds[K]) => void): () => void {
    const listeners = this.#of.get(kind) ?? new Set();
    this.#of.set(kind, listeners);
    // Of its own, so that the same function given twice is two listeners.
    const entry = (event: Kinds[K]): void => listener(event);
    listeners.add(entry);
    return () => listeners.delete(entry);
  }

  tell<K extends keyof Kinds>(kind: K, event: Kinds[K]): void {
    for (const listener of [...(this.#of.get(kind) ?? [])] as ((event: Kinds[K]) => void)[]) {
      this.call(() => listener(event));
    }
  }

  /** Calls what somebody else wrote. */
  call(run: () => void): void {
    try {
      run();
    } catch (error) {
      this.reportError(error);
    }
  }
}
