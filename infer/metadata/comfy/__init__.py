"""ComfyUI's graphs: the API graph that was drawn (`prompt`), and the graph as its page holds it (`workflow`)."""
