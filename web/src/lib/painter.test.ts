import { expect, test } from "vitest";

import { Painter } from "./painter";

function screen() {
  let waiting: ((now: number) => void)[] = [];
  let onVisible = () => {};
  const frames = {
    hidden: false,
    request: (callback: (now: number) => void) => void waiting.push(callback),
    isHidden: () => frames.hidden,
    onVisible: (callback: () => void) => (onVisible = callback),
    show() {
      frames.hidden = false;
      onVisible();
    },
    frame(now: number): number {
      const callbacks = waiting;
      waiting = [];
      for (const callback of callbacks) callback(now);
      return callbacks.length;
    },
  };
  return frames;
}

test("ten thousand touches are one painting, and no more often than agreed", () => {
  const frames = screen();
  const painter = new Painter(frames);
  let painted = 0;
  const brush = painter.brush(100, () => (painted += 1));
  for (let n = 0; n < 10_000; n += 1) brush.touch();
  expect(frames.frame(0)).toBe(1);
  expect(painted).toBe(1);
  brush.touch();
  frames.frame(16);
  expect(painted).toBe(1);
  frames.frame(100);
  expect(painted).toBe(2);
  expect(frames.frame(116)).toBe(0);
});

test("a hidden page paints nothing until it is shown", () => {
  const frames = screen();
  const painter = new Painter(frames);
  let painted = 0;
  const brush = painter.brush(0, () => (painted += 1));
  frames.hidden = true;
  brush.touch();
  expect(frames.frame(0)).toBe(0);
  frames.show();
  frames.frame(16);
  expect(painted).toBe(1);
  brush.touch();
  brush.stop();
  frames.frame(32);
  expect(painted).toBe(1);
});
