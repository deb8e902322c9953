// A page of ours in a frame: a refusal in its place is said as one.

import { nothing } from "../parts.js";

// Whether the frame has got a refusal, which then stands in its place.
export function refused(frame) {
  const own = frame.contentDocument;
  if (!own || own.contentType !== "application/json") return false;
  let text = own.body.textContent;
  try { text = JSON.parse(text).error ?? text; } catch { /* as it is */ }
  frame.replaceWith(nothing(text));
  return true;
}
