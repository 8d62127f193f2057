"""HTTP/1.x between sockets and the front end (`api.server`), on asyncio's protocols and without a task of its own.

`connection` is the protocol of a socket: heads in, one request at a time to a `Handler`, its answer out; `body` is what
a handler reads of a request; `places` says who is served, who rests and who has to go; `overdue` is how everything
that waits for a client is bounded in time.  Without I/O: `head` (a request's head, parsed), `chunks` (chunked transfer
coding), `answer` (a response's head as bytes).

Here nothing knows S3 but its errors: what a request means is for `dispatch` and the handlers.
"""
