// Which screen the address names, and the parameters that make a view something one can link to.

export const SCREENS = ["overview", "activity", "topics", "system"] as const;
export type Screen = (typeof SCREENS)[number];

interface Route {
  /** undefined: the address names no screen there is. */
  screen: Screen | undefined;
  parameters: URLSearchParams;
}

class Router {
  current = $state.raw<Route>(read());

  constructor() {
    addEventListener("popstate", () => (this.current = read()));
  }

  /** Goes to another screen; it is a step that "back" undoes. The range goes along. */
  go(screen: Screen, parameters: Record<string, string> = {}): void {
    const range = this.current.parameters.get("range");
    const search = new URLSearchParams({ ...(range ? { range } : {}), ...parameters });
    history.pushState(null, "", address(screen, search));
    this.current = read();
  }

  /** Changes a parameter of this view in place; `undefined` takes it out. */
  set(name: string, value: string | undefined): void {
    const search = new URLSearchParams(this.current.parameters);
    if (value === undefined || value === "") search.delete(name);
    else search.set(name, value);
    history.replaceState(null, "", address(this.current.screen ?? "overview", search));
    this.current = read();
  }

  get(name: string): string | undefined {
    return this.current.parameters.get(name) ?? undefined;
  }
}

export const router = new Router();

/** The address of a screen. */
export function address(screen: Screen, parameters: URLSearchParams = new URLSearchParams()): string {
  const search = parameters.toString();
  return `${screen === "overview" ? "/" : `/${screen}`}${search ? `?${search}` : ""}`;
}

function read(): Route {
  const name = location.pathname.replace(/^\/|\/$/g, "") || "overview";
  const screen = SCREENS.find((known) => known === name);
  return { screen, parameters: new URLSearchParams(location.search) };
}
