"""The page that votes are cast on: pairs, session, local server, static file."""
