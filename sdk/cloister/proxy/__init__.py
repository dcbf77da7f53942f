"""Plain JSON in, attested sealed calls out, on this machine only: for curl and for other languages.

    address   where it may listen: loopback or a Unix socket
    guard     who may ask: the token, and no browser
    messages  JSON to arguments and results to JSON
    operations  what can be asked, from the signatures of `Client`
    app       the ASGI application: limits, errors, log lines
    server    token files and uvicorn

Whoever can reach it and has the token acts with the identity of the client behind it.
"""
