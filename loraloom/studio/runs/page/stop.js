// The button that stops a job that runs.

import { write } from "../api.js";
import { button, confirmed } from "../parts.js";
import { stopWords } from "./words.js";

// As Ctrl-C. A job that was asked to stop already would be ended at once: by another button, which asks first; a second click on the first one does nothing.
export function stopButton({ id, stops }, title) {
  const words = () => stopWords(id), stop = () => write("runs/stop", { id, stops });
  if (!stops) return button("Stop", { act: stop, words, title });
  return button("End at once", {
    kind: "danger", words, title: "It was asked to stop, and ends by itself",
    act: async () => { if (await confirmed("The job was asked to stop, and ends by itself: a training saves a checkpoint first. Ended at once it saves nothing more.", "End it at once")) await stop(); },
  });
}
