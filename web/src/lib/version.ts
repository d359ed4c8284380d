// Whether the hub serves another page than the one that runs here.

/** The page's own script: its name holds a hash of all the page is made of. */
const SCRIPT = /<script[^>]+src="(\/assets\/[^"]+)"/;

/** Asks after a reconnect: the hub may have been replaced by a newer one. */
export async function isOutdated(): Promise<boolean> {
  const running = document.querySelector<HTMLScriptElement>('script[type="module"]')?.getAttribute("src");
  try {
    const response = await fetch("/", { headers: { accept: "text/html" } });
    const served = SCRIPT.exec(await response.text())?.[1];
    return response.ok && served !== undefined && served !== running;
  } catch {
    // Gone again: the connection's own states tell of it.
    return false;
  }
}
