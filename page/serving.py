"""The page over HTTP: plain files, facts as JSON, changes as server-sent events, and, if allowed, two actions.

Nothing is answered without the token but the files that ask for it. No access log is written.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trainmaster.controller.maintenance.orders import Order
from trainmaster.errors import ControllerError, UsageError
from trainmaster.page import assets, changes
from trainmaster.page.doors import Doors, host_is_ours, owner_of
from trainmaster.page.facts import Facts
from trainmaster.page.lives import swaps
from trainmaster.page.watching import Watch

COOKIE = "trainmaster-page"
_HEARTBEAT_S = 10.0
_QUEUE_MAX = 64
_BODY_MAX = 4096
# Nothing from anywhere else, no frames, no address passed on.
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src {style}; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}


@dataclass(slots=True)
class Serving:
    """What the handlers share."""

    watch: Watch
    doors: Doors
    listening: str
    """The address that browsers name."""
    allow_actions: bool
    browsers: set[asyncio.Queue[bytes]] = field(default_factory=set)
    loop: asyncio.AbstractEventLoop | None = None
    _whole: tuple[Facts, bytes] | None = None

    def whole(self) -> bytes:
        """All facts as JSON; put together once for each look, however many browsers come."""
        facts = self.watch.facts
        if self._whole is None or self._whole[0] is not facts:
            self._whole = facts, msgspec.json.encode(changes.whole(facts))
        return self._whole[1]

    def seen(self, old: Facts, new: Facts) -> None:
        """From the watching thread: pass a change on to every browser."""
        if self.loop is not None and not self.loop.is_closed():
            text = _event("change", changes.between(old, new))
            self.loop.call_soon_threadsafe(self._tell, text)

    def _tell(self, text: bytes) -> None:
        for queue in list(self.browsers):
            if queue.full():
                # It has slept; it begins anew rather than with a hole in the story.
                while not queue.empty():
                    queue.get_nowait()
                queue.put_nowait(_event("change", {"full": True}))
            else:
                queue.put_nowait(text)


def _event(name: str, values: dict[str, Any]) -> bytes:
    return _event_of(name, msgspec.json.encode(values))


def _event_of(name: str, data: bytes) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


def _json(values: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(values), status_code=status, media_type="application/json")


def _refused(status: int, why: str) -> Response:
    return _json({"error": why}, status)


Handler = Callable[[Request], Awaitable[Response]]


def app_of(serving: Serving) -> Starlette:
    """The application."""
    ours = assets.read()

    def guarded(handler: Handler) -> Handler:
        async def inner(request: Request) -> Response:
            return await handler(request) if _word(serving, request) is not None else _refused(401, "show the token")

        return inner

    async def index(request: Request) -> Response:
        return Response(ours.document, media_type="text/html; charset=utf-8")

    async def static(request: Request) -> Response:
        found = ours.files.get(request.path_params["name"])
        if found is None or request.path_params["version"] != ours.version:
            return Response("no such file", status_code=404)
        return Response(found[0], media_type=found[1], headers={"cache-control": "max-age=31536000, immutable"})

    async def enter(request: Request) -> Response:
        if not _same_origin(request):
            return _refused(403, "from another page")
        body = await _body(request)
        given = serving.doors.enter(str(body.get("token", "")))
        if given is None:
            await asyncio.sleep(0.5)
            return _refused(401, "that is not the token")
        answer = _json(_greeting(serving, given[1]))
        answer.set_cookie(COOKIE, given[0], httponly=True, samesite="strict", path="/")
        return answer

    async def session(request: Request) -> Response:
        return _json(_greeting(serving, _word(serving, request) or ""))

    async def facts(request: Request) -> Response:
        return Response(serving.whole(), media_type="application/json")

    async def node(request: Request) -> Response:
        found = await asyncio.to_thread(_node, serving.watch, request.path_params["name"])
        return _json(found) if found is not None else _refused(404, "Slurm has no such node")

    async def job(request: Request) -> Response:
        return _json(await asyncio.to_thread(_job, serving.watch, request.path_params["number"]))

    async def events(request: Request) -> Response:
        return StreamingResponse(_stream(serving), media_type="text/event-stream")

    async def act(request: Request) -> Response:
        return await _act(serving, request)

    routes = [
        Route("/", index),
        Route("/api/enter", enter, methods=["POST"]),
        Route("/api/session", guarded(session)),
        Route("/api/facts", guarded(facts)),
        Route("/api/node/{name}", guarded(node)),
        Route("/api/job/{number:int}", guarded(job)),
        Route("/api/events", guarded(events)),
        Route("/api/act", guarded(act), methods=["POST"]),
        Route("/static/{version}/{name}", static),
    ]
    gate = Middleware(_Gate, listening=serving.listening, style=ours.style_hash)
    return Starlette(routes=routes, middleware=[gate])


class _Gate:
    """Turns away requests that mean another host, and puts our headers on every answer."""

    def __init__(self, app: ASGIApp, listening: str, style: str) -> None:
        self._app, self._listening = app, listening
        headers = {name: value.replace("{style}", style) for name, value in _HEADERS.items()}
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        if not host_is_ours(host, self._listening):
            await Response("not this host", status_code=421)(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                said = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(row for row in self._headers if row[0] not in said)]
            await send(message)

        await self._app(scope, receive, with_headers)


def _greeting(serving: Serving, word: str) -> dict[str, Any]:
    return {"actions": serving.allow_actions, "word": word}


def _word(serving: Serving, request: Request) -> str | None:
    """The word of the session that a request belongs to, "" for one with the token itself; None for neither."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and serving.doors.fits(token.strip()):
        return ""
    return serving.doors.word_of(request.cookies.get(COOKIE, ""))


def _same_origin(request: Request) -> bool:
    """Whether a browser sent it from our own page; what is no browser names no origin."""
    origin = request.headers.get("origin")
    return origin is None or origin == f"http://{request.headers.get('host', '')}"


async def _body(request: Request) -> dict[str, Any]:
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > _BODY_MAX:
            return {}
    try:
        found = msgspec.json.decode(data)
    except msgspec.DecodeError:
        return {}
    return found if isinstance(found, dict) else {}


async def _stream(serving: Serving) -> AsyncIterator[bytes]:
    queue: asyncio.Queue[bytes] = asyncio.Queue(_QUEUE_MAX)
    serving.browsers.add(queue)
    serving.watch.welcome()
    try:
        yield _event_of("whole", serving.whole())
        while True:
            try:
                yield await asyncio.wait_for(queue.get(), _HEARTBEAT_S)
            except TimeoutError:
                # Without it a browser could not tell a quiet fleet from a dead connection.
                yield b"event: alive\ndata: {}\n\n"
    finally:
        serving.browsers.discard(queue)


def _node(watch: Watch, name: str) -> dict[str, Any] | None:
    fact = watch.facts.nodes.get(name)
    if fact is None:
        return None
    slurm = watch.look.nodes.get(name) if watch.look is not None else None
    host = watch.memory.maintenance.hosts.get(name) or watch.memory.maintenance.past.get(name)
    stack = watch.memory.maintenance.stacks.get(name)
    record = watch.memory.nodes.get(name)
    values = {
        "fact": fact,
        "slurm": asdict(slurm) if slurm is not None else {},
        "leaf": next(((p.name, leaf.name) for p in watch.facts.pods for leaf in p.leaves if name in leaf.nodes), None),
        "evidence": record.evidence if record is not None else (),
        "busy_days": watch.memory.exposure_days.get(name, 0.0),
        "host": host,
        "versions": stack.versions if stack is not None else {},
        "events": watch.events(f"node:{name}"),
    }
    found: dict[str, Any] = msgspec.to_builtins(values)
    return found


def _job(watch: Watch, number: int) -> dict[str, Any]:
    job = watch.look.jobs.get(number) if watch.look is not None else None
    life = watch.lives.of(number)
    for row, new in zip(life["cycles"], swaps(life["cycles"]), strict=True):
        row["swapped_in"] = new
    values = {
        "job_id": number,
        "slurm": asdict(job) if job is not None else None,
        "nodes": sorted(watch.look.holders.get(number, ())) if watch.look is not None else [],
        "record": watch.memory.jobs.get(number),
        "events": watch.events(f"job:{number}"),
        "life": life,
    }
    found: dict[str, Any] = msgspec.to_builtins(values)
    return found


async def _act(serving: Serving, request: Request) -> Response:
    """One of the two things that can be asked for here, by whoever holds the other end of the connection."""
    if not serving.allow_actions:
        return _refused(403, "this page only shows; start it with --allow-actions")
    word = _word(serving, request)
    if not word or request.headers.get("x-trainmaster-word") != word or not _same_origin(request):
        return _refused(403, "that did not come from this page")
    body = await _body(request)
    verb, target, why = (str(body.get(key, "")) for key in ("verb", "target", "why"))
    # uvicorn tells the client's address, and the socket's own, as pairs.
    client, server = request.scope.get("client"), request.scope.get("server")
    who = owner_of(client[1], towards=server[1]) if client and server else ""
    if not who:
        return _refused(403, "whose connection that is cannot be told, so nobody could be named in the record")
    try:
        known = _request_of(serving.watch, verb, target, why, who)
        await asyncio.to_thread(serving.watch.ask, known[0], known[1], by=f"{who} (page)", why=known[2])
    except (UsageError, ControllerError) as error:
        return _refused(409, error.message)
    return _json({"asked": verb, "target": target, "by": who})


def _request_of(watch: Watch, verb: str, target: str, why: str, who: str) -> tuple[str, str, str]:
    """Verb, target and words for the journal. Raises UsageError for what may not be asked here."""
    why = " ".join(why.split())[:200] or "no reason given"
    if verb == "release":
        if target not in watch.facts.nodes:
            raise UsageError(f"Slurm has no node {target[:60]!r}")
        return "release", target, why
    if verb in ("pause", "resume"):
        train = watch.memory.maintenance.trains.get(target)
        if train is None or not train.active:
            raise UsageError(f"the train {target[:60]!r} is not under way")
        order = Order(verb="pause" if verb == "pause" else "resume", train=target, why=why, by=f"{who} (page)")
        return "train", target, msgspec.json.encode(order).decode()
    raise UsageError(f"{verb[:40]!r} cannot be asked for here")


class Server(uvicorn.Server):
    """uvicorn's, on a socket that is open already, with the loop handed to whoever wants to reach browsers."""

    def __init__(self, serving: Serving) -> None:
        config = uvicorn.Config(
            app_of(serving), log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=1
        )
        super().__init__(config)
        self._serving = serving

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Until it is told to end."""
        self._serving.loop = asyncio.get_running_loop()
        await super().serve(sockets)


def listen(address: str, port: int) -> socket.socket:
    """A socket to serve on. Raises UsageError when it cannot be had."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((address.strip("[]"), port))
        found.listen(64)
    except OSError as error:
        found.close()
        raise UsageError(
            f"could not listen at {address}:{port}: {error.strerror}", hint="name another with --listen"
        ) from None
    return found
