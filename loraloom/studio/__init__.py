"""Studio: one local page over the same commands. It adds nothing that a command cannot do: each button shows the command it runs.

The server is aiohttp's: it is installed with `datasets` already (through fsspec), so that the Studio needs no package that a user has not,
and it has the server, streams and uploads in one where Starlette needs uvicorn and python-multipart beside it.

    guard.py      who may ask: the token in the address, Host, Origin
    routes.py     what a section answers: reads, writes, uploads, topics that a page watches
    server.py     the routes as an aiohttp application, on 127.0.0.1
    events.py     server-sent events: what changed of the topics that pages watch
    places.py     which files may be read and written; thumbnails
    page/         the shell of the page: modules without a build step
    <section>/    runs, new_run, data, models, grids: routes.py, and page/index.js that shows it
"""
