// What the scripts of all clients share: how a case speaks to the test that runs it, and how it waits.

import assert from "node:assert/strict";
import { createInterface } from "node:readline";

/** Milliseconds that anything may take that should happen at once. */
export const PATIENCE = 15_000;

const input = createInterface({ input: process.stdin });

/** Has the test do something with the server, and resolves when that is done. */
export async function ask(request) {
  const answer = new Promise((resolve) => input.once("line", resolve));
  console.log(JSON.stringify({ ask: request }));
  assert.equal(await answer, "done");
}

/** Tells the test that the case has passed, as its last words. */
export function pass(caseName) {
  console.log(JSON.stringify({ case: caseName, passed: true }));
  input.close();
}

export function within(what, promise) {
  let timer;
  const limit = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited in vain for ${what}`)), PATIENCE);
  });
  return Promise.race([promise, limit]).finally(() => clearTimeout(timer));
}

export function numbers(count) {
  return Array.from({ length: count }, (_, index) => index);
}

export function ascending(values) {
  return [...values].sort((a, b) => a - b);
}
