// The worker that holds the one stream of server-sent events for all pages of a browser: each page says which topics it watches.

const pages = new Map(); // port -> Set of topics
const latest = new Map(); // topic -> its last message
let source = null, open = "", due = null;

function add(port) {
  pages.set(port, new Set());
  port.onmessage = (event) => {
    const before = pages.get(port) ?? new Set();
    pages.set(port, new Set(event.data.topics));
    for (const topic of pages.get(port)) if (!before.has(topic) && latest.has(topic)) port.postMessage(latest.get(topic));
    if (!event.data.topics.length) pages.delete(port);
    clearTimeout(due);
    due = setTimeout(connect, 30);
  };
}

function connect() {
  const topics = [...new Set([...pages.values()].flatMap((each) => [...each]))].sort();
  const query = new URLSearchParams(topics.map((topic) => ["topic", topic])).toString();
  if (query === open && source?.readyState !== 2) return;
  source?.close();
  open = query;
  for (const topic of latest.keys()) if (!topics.includes(topic)) latest.delete(topic);
  if (!topics.length) { source = null; return; }
  source = new EventSource(`../events?${query}`);
  const own = source;
  source.onopen = () => tell({ open: true });
  source.onerror = () => {
    tell({ open: false });
    if (own.readyState === 2) setTimeout(() => { if (source === own) connect(); }, 2000);
  };
  source.onmessage = (event) => {
    const message = JSON.parse(event.data);
    latest.set(message.topic, message);
    for (const [port, each] of pages) if (each.has(message.topic)) port.postMessage(message);
  };
}

const tell = (message) => { for (const port of pages.keys()) port.postMessage(message); };

if ("onconnect" in self) self.onconnect = (event) => add(event.ports[0]);
else add(self);
