// Light, dark, or as the system has it.

import { keep, recall } from "./preferences";

const THEMES = ["system", "light", "dark"] as const;
export type Theme = (typeof THEMES)[number];

class ThemeChoice {
  current = $state<Theme>(THEMES.find((theme) => theme === recall("theme")) ?? "system");

  /** The next of the three; what is not the system's is kept for the next visit. */
  next(): void {
    this.current = THEMES[(THEMES.indexOf(this.current) + 1) % THEMES.length] ?? "system";
    keep("theme", this.current === "system" ? undefined : this.current);
    if (this.current === "system") delete document.documentElement.dataset["theme"];
    else document.documentElement.dataset["theme"] = this.current;
  }
}

export const theme = new ThemeChoice();
