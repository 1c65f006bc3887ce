"""Cases for the NATS client in Python: `suite.py CASE URL [ARGUMENT…]`.

A case that passes prints `{"passed": true}` as its last line and exits with 0; one that fails shows why and exits
with 1. A case that needs its server stopped or started prints `{"ask": …}` and waits for the answering line on
standard input.

Where a case says that something does not arrive, it does not wait for it not to arrive: whoever has seen any answer
of the server finds, with the next thing it sends on whatever connection, everything done that led to that answer. So
after a round trip of the publisher and then one of the subscriber, what the subscriber has not got was not sent.
"""

import asyncio
import json
import os
import ssl
import sys

import nats
from nats.errors import (
    AuthorizationError,
    MaxPayloadError,
    NoRespondersError,
    NoServersError,
    TimeoutError,
)

PATIENCE = 15.0
"""Seconds that anything may take that should happen at once."""

TLS = json.loads(os.environ.get("CLIENT_TLS", "null"))
"""How to use TLS: `ca`, `cert`, `key` (files) and `first`."""

CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


class Context:
    """What a case works with: its server, its arguments and the connections to close at the end."""

    def __init__(self, url, arguments):
        self.url = url
        self.arguments = arguments
        self.connections = []

    async def connect(self, url=None, **options):
        async def ignore(_error):
            pass

        options.setdefault("error_cb", ignore)
        options.setdefault("reconnect_time_wait", 0.02)
        options.setdefault("max_reconnect_attempts", -1)
        options.setdefault("connect_timeout", PATIENCE)
        if TLS:
            options.setdefault("tls", tls_context())
            options.setdefault("tls_handshake_first", TLS["first"])
        connection = await nats.connect(url or self.url, **options)
        self.connections.append(connection)
        return connection

    async def subscribed(self, subject, **options):
        """A connection with a subscription that is in force."""
        connection = await self.connect()
        subscription = await connection.subscribe(subject, **options)
        await round_trip(connection)
        return connection, subscription

    async def responders(self, subject, count):
        """Connects so many responders, each naming itself in its answer."""
        for index in range(count):
            async def answer(message, index=index):
                await message.respond(f"responder {index} to {message.data.decode()}".encode())

            await self.subscribed(subject, cb=answer)

    async def ask(self, request):
        print(json.dumps({"ask": request}), flush=True)
        answer = await asyncio.to_thread(sys.stdin.readline)
        assert answer == "done\n", f"{request} was answered by {answer!r}"

    async def close(self):
        await asyncio.gather(*(connection.close() for connection in self.connections))


def tls_context():
    context = ssl.create_default_context(cafile=TLS["ca"])
    if "cert" in TLS:
        context.load_cert_chain(TLS["cert"], TLS["key"])
    return context


async def round_trip(connection):
    """Asks the server something that it answers itself."""
    subject = connection.new_inbox().replace(".", "-")
    try:
        await connection.request(subject, timeout=PATIENCE)
    except NoRespondersError:
        return
    raise AssertionError(f"somebody answered on {subject}")


async def received(subscription):
    """The messages that have arrived."""
    return [await subscription.next_msg() for _ in range(subscription.pending_msgs)]


async def received_texts(subscription):
    return [message.data.decode() for message in await received(subscription)]


async def happens(what, event):
    try:
        await asyncio.wait_for(event.wait(), PATIENCE)
    except asyncio.TimeoutError:
        raise AssertionError(f"waited in vain until {what}") from None


async def holds(what, condition):
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"waited in vain until {what}"
        await asyncio.sleep(0.002)


async def raises(kind, awaitable):
    try:
        result = await awaitable
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was expected, not {result!r}")


def equal(actual, expected, about=""):
    assert actual == expected, f"{about} expected {expected!r}, got {actual!r}"


def teller():
    """An event and a callback that sets it."""
    event = asyncio.Event()

    async def tell():
        event.set()

    return event, tell


@case
async def publish_subscribe(context):
    publisher = await context.connect()
    subscribers = [await context.subscribed("orders.new") for _ in range(5)]
    expected = [f"order {index}" for index in range(1000)]
    for text in expected:
        await publisher.publish("orders.new", text.encode())
    await round_trip(publisher)
    for connection, subscription in subscribers:
        await round_trip(connection)
        equal(await received_texts(subscription), expected)


@case
async def wildcards(context):
    subjects = ["a", "a.b", "a.c", "a.b.c", "a.b.c.d", "b.b", "ab.b"]
    expected = {
        "a.*": ["a.b", "a.c"],
        "*.b": ["a.b", "b.b", "ab.b"],
        "a.>": ["a.b", "a.c", "a.b.c", "a.b.c.d"],
        "a.*.c": ["a.b.c"],
        "a.*.>": ["a.b.c", "a.b.c.d"],
    }
    publisher = await context.connect()
    subscribers = {pattern: await context.subscribed(pattern) for pattern in expected}
    for subject in subjects:
        await publisher.publish(subject)
    await round_trip(publisher)
    for pattern, (connection, subscription) in subscribers.items():
        await round_trip(connection)
        equal([message.subject for message in await received(subscription)], expected[pattern], pattern)

    # A round trip is a request that nobody takes, so there are none while somebody takes everything.
    everything = await publisher.subscribe(">")
    for subject in subjects:
        await publisher.publish(subject)
    for subject in subjects:
        equal((await everything.next_msg(PATIENCE)).subject, subject)


@case
async def queue_groups(context):
    count = 400
    publisher = await context.connect()
    groups = {
        group: [await context.subscribed("orders.*", queue=group) for _ in range(4)]
        for group in ("billing", "shipping")
    }
    observer, everything = await context.subscribed("orders.*")
    for index in range(count):
        await publisher.publish("orders.new", str(index).encode())
    await round_trip(publisher)
    await round_trip(observer)
    equal([int(text) for text in await received_texts(everything)], list(range(count)))
    for group, members in groups.items():
        shares = []
        for connection, subscription in members:
            await round_trip(connection)
            share = [int(text) for text in await received_texts(subscription)]
            assert share, f"a member of {group} got nothing"
            equal(share, sorted(share), group)
            shares += share
        equal(sorted(shares), list(range(count)), group)


@case
async def first_answer_wins(context):
    await context.responders("time.now", 5)
    client = await context.connect()
    for index in range(40):
        question = f"question {index}"
        answer = await client.request("time.now", question.encode(), timeout=PATIENCE)
        assert answer.data.decode().endswith(f" to {question}"), answer.data


@case
async def gather_answers(context):
    await context.responders("who.is.there", 5)
    client = await context.connect()
    inbox = client.new_inbox()
    answers = await client.subscribe(inbox)
    await client.publish("who.is.there", b"hello", reply=inbox)
    names = sorted([(await answers.next_msg(PATIENCE)).data.decode() for _ in range(5)])
    equal(names, [f"responder {index} to hello" for index in range(5)])
    await round_trip(client)
    equal(await received(answers), [], "nobody answers twice:")


@case
async def no_responders(context):
    client = await context.connect()
    responder, subscription = await context.subscribed("service")
    await raises(NoRespondersError, client.request("other.service", b"?", timeout=PATIENCE))
    await raises(NoRespondersError, client.request("other.service", b"?", timeout=PATIENCE, old_style=True))
    await subscription.unsubscribe()
    await round_trip(responder)
    await raises(NoRespondersError, client.request("service", b"?", timeout=PATIENCE))


@case
async def headers(context):
    sent = {"Content-Type": "text/plain; charset=utf-8", "X-Tag": "green: and yellow", "x-tag": "blå", "Number": "0"}
    publisher = await context.connect()
    connection, subscription = await context.subscribed("with.headers")
    await publisher.publish("with.headers", b"body", headers=sent)
    await publisher.publish("with.headers", b"", headers=sent)
    await publisher.publish("with.headers", b"none")
    await round_trip(publisher)
    await round_trip(connection)
    messages = await received(subscription)
    equal([(message.data, message.headers) for message in messages], [(b"body", sent), (b"", sent), (b"none", None)])


@case
async def subscription_drain(context):
    handled = []
    gate = asyncio.Event()

    async def handle(message):
        await gate.wait()
        handled.append(int(message.data))

    publisher = await context.connect()
    connection, subscription = await context.subscribed("jobs", cb=handle)
    for index in range(500):
        await publisher.publish("jobs", str(index).encode())
    await round_trip(publisher)
    await round_trip(connection)
    draining = asyncio.create_task(subscription.drain())
    # The task runs up to its first wait, which puts the end of the subscription before this round trip.
    await asyncio.sleep(0)
    await round_trip(connection)
    await raises(NoRespondersError, publisher.request("jobs", b"late", timeout=PATIENCE))
    equal(handled, [])
    gate.set()
    await asyncio.wait_for(draining, PATIENCE)
    equal(handled, list(range(500)))


@case
async def connection_drain(context):
    handled = []
    gate = asyncio.Event()
    closed, tell_closed = teller()
    worker = await context.connect(closed_cb=tell_closed)

    async def handle(message):
        await gate.wait()
        handled.append(int(message.data))
        await worker.publish("results", message.data)

    await worker.subscribe("jobs", cb=handle)
    await round_trip(worker)
    observer, results = await context.subscribed("results")
    for index in range(500):
        await observer.publish("jobs", str(index).encode())
    await round_trip(observer)
    await round_trip(worker)
    draining = asyncio.create_task(worker.drain())
    await asyncio.sleep(0)
    gate.set()
    await asyncio.wait_for(draining, PATIENCE)
    await happens("the drained connection is closed", closed)
    equal(handled, list(range(500)))
    for index in range(500):
        equal(int((await results.next_msg(PATIENCE)).data), index)
    await raises(NoRespondersError, observer.request("jobs", b"late", timeout=PATIENCE))


@case
async def flush(context):
    _connection, subscription = await context.subscribed("flushed")
    publisher = await context.connect()
    for index in range(2000):
        await publisher.publish("flushed", str(index).encode())
    await publisher.flush()
    equal(publisher.pending_data_size, 0)
    await publisher.close()
    for index in range(2000):
        equal(int((await subscription.next_msg(PATIENCE)).data), index)


@case
async def restart(context):
    disconnected, tell_disconnected = teller()
    reconnected, tell_reconnected = teller()
    client = await context.connect(disconnected_cb=tell_disconnected, reconnected_cb=tell_reconnected)
    plain = await client.subscribe("kept.*")
    member = await client.subscribe("kept.>", queue="group")
    await round_trip(client)

    await context.ask("stop")
    await happens("the client notices the stop", disconnected)
    buffered = [f"buffered {index}" for index in range(100)]
    for text in buffered:
        await client.publish("kept.meanwhile", text.encode())
    await context.ask("start")
    await happens("the client is connected again", reconnected)
    await round_trip(client)
    equal(await received_texts(plain), buffered)
    equal(await received_texts(member), buffered)

    other = await context.connect()
    await other.publish("kept.later", b"from another")
    await round_trip(other)
    await round_trip(client)
    equal(await received_texts(plain), ["from another"])
    equal(await received_texts(member), ["from another"])


@case
async def max_payload(context):
    limit = 2048
    client = await context.connect()
    equal(client.max_payload, limit)
    other, subscription = await context.subscribed("limited")
    await raises(MaxPayloadError, client.publish("limited", bytes(limit + 1)))
    await client.publish("limited", bytes(limit))
    await round_trip(client)

    # This client does not count headers, so it is the server that refuses these.
    closed, tell_closed = teller()
    careless = await context.connect(closed_cb=tell_closed)
    await careless.publish("limited", bytes(limit), headers={"Key": "value"})
    await happens("the server ends the connection", closed)
    assert "maximum payload violation" in str(careless.last_error).lower(), repr(careless.last_error)

    await round_trip(client)
    await round_trip(other)
    equal([len(message.data) for message in await received(subscription)], [limit])


@case
async def slow_consumer(context):
    batch = 16
    # 48 MiB: more than socket buffers hold, less than the default of max_pending.
    flood_max = 1536
    # Less than the default of write_deadline.
    limit = 8.0
    disconnected, tell_disconnected = teller()
    reconnected, tell_reconnected = teller()
    slow = await context.connect(disconnected_cb=tell_disconnected, reconnected_cb=tell_reconnected)
    await slow.subscribe("flood")
    await slow.subscribe("slow.client")
    await round_trip(slow)
    transport = slow._transport._io_writer.transport
    transport.pause_reading()

    _healthy, flood = await context.subscribed("flood")
    publisher = await context.connect()
    inbox = publisher.new_inbox()
    answers = await publisher.subscribe(inbox)
    sent = 0

    async def cut_off():
        await publisher.publish("slow.client", b"", reply=inbox)
        await round_trip(publisher)
        return answers.pending_msgs > 0

    deadline = asyncio.get_running_loop().time() + limit
    while not await cut_off():
        assert asyncio.get_running_loop().time() < deadline, f"still connected after {sent} messages"
        if sent < flood_max:
            for index in range(sent, sent + batch):
                await publisher.publish("flood", index.to_bytes(8, "big") + bytes(32 * 1024 - 8))
            for index in range(sent, sent + batch):
                equal(int.from_bytes((await flood.next_msg(PATIENCE)).data[:8], "big"), index)
            sent += batch
    await publisher.publish("flood", b"after the cut")
    equal((await flood.next_msg(PATIENCE)).data, b"after the cut")

    transport.resume_reading()
    await happens("the slow client notices", disconnected)
    await happens("the slow client is back", reconnected)
    await round_trip(slow)


@case
async def many_connections(context):
    publisher = await context.connect()
    subscribers = []
    for _ in range(10):
        subscribers += await asyncio.gather(*(context.subscribed("news") for _ in range(20)))
    await publisher.publish("news", b"to all")
    await round_trip(publisher)
    for connection, subscription in subscribers:
        await round_trip(connection)
        equal(await received_texts(subscription), ["to all"])


@case
async def no_echo(context):
    quiet = await context.connect(no_echo=True)
    own = await quiet.subscribe("room")
    await round_trip(quiet)
    other, others = await context.subscribed("room")
    await quiet.publish("room", b"from the quiet one")
    await round_trip(quiet)
    await other.publish("room", b"from the other")
    await round_trip(other)
    await round_trip(quiet)
    equal(await received_texts(own), ["from the other"])
    equal(await received_texts(others), ["from the quiet one", "from the other"])
    await others.unsubscribe()
    await round_trip(other)
    await raises(NoRespondersError, quiet.request("room", b"anybody else?", timeout=PATIENCE))


@case
async def auto_unsubscribe(context):
    publisher = await context.connect()
    connection, subscription = await context.subscribed("lottery")
    await subscription.unsubscribe(limit=3)
    await round_trip(connection)
    for index in range(5):
        await publisher.publish("lottery", str(index).encode())

    async def all_drawn():
        return [int(message.data) async for message in subscription.messages]

    equal(await asyncio.wait_for(all_drawn(), PATIENCE), [0, 1, 2])
    await raises(NoRespondersError, publisher.request("lottery", b"late", timeout=PATIENCE))


async def refused(context, **options):
    error = await raises(Exception, context.connect(allow_reconnect=False, **options))
    assert isinstance(error, AuthorizationError) or "'Authorization Violation'" in str(error), repr(error)


@case
async def password(context):
    user, password = context.arguments
    await round_trip(await context.connect(user=user, password=password))
    in_url = context.url.replace("nats://", f"nats://{user}:{password}@")
    await round_trip(await context.connect(in_url))
    for wrong in [(user, password + "x"), (user, ""), ("bob", password), (user.upper(), password)]:
        await refused(context, user=wrong[0], password=wrong[1])
    await refused(context)
    await refused(context, token=password)


@case
async def token(context):
    (token,) = context.arguments
    await round_trip(await context.connect(token=token))
    await round_trip(await context.connect(context.url.replace("nats://", f"nats://{token}@")))
    for wrong in [token + "x", token[:-1], token.upper()]:
        await refused(context, token=wrong)
    await refused(context)
    await refused(context, user=token, password=token)


@case
async def access(context):
    (seed,) = context.arguments
    listeners = {}
    for name, options in {
        "plain": {"user": "plain", "password": "secret"},
        "hashed": {"user": "hashed", "password": "hashed"},
        "nkey": {"nkeys_seed_str": seed},
        "other": {"user": "other", "password": "x"},
    }.items():
        connection = await context.connect(**options)
        listeners[name] = (connection, await connection.subscribe("news.*"))
        await round_trip(connection)
    for user, password in [("plain", "hashed"), ("hashed", "secret"), ("nobody", "x")]:
        await refused(context, user=user, password=password)
    await refused(context)
    await hear_who_is_limited(context, listeners, user="limited", password="x")


@case
async def credentials(context):
    own, limited, other, stranger = context.arguments
    listeners = {}
    for name, file in {"own": own, "other": other}.items():
        connection = await context.connect(user_credentials=file)
        listeners[name] = (connection, await connection.subscribe("news.*"))
        await round_trip(connection)
    await refused(context, user_credentials=stranger)
    await refused(context)
    await hear_who_is_limited(context, listeners, user_credentials=limited)


async def hear_who_is_limited(context, listeners, **options):
    """A user that may not do everything is told so, and all listeners but "other" hear what it may publish."""
    errors = []

    async def remember(error):
        errors.append(str(error).lower())

    limited = await context.connect(error_cb=remember, **options)
    await limited.publish("news.today", b"from limited")
    await limited.publish("secret.news", b"not for them")
    await limited.subscribe("secret.>")
    await holds("both violations are told", lambda: len(errors) >= 2)
    assert 'permissions violation for publish to "secret.news"' in errors[0], errors
    assert 'permissions violation for subscription to "secret.>"' in errors[1], errors
    await limited.publish("news.today", b"goes on")
    await limited.flush()
    for name, (connection, subscription) in listeners.items():
        await round_trip(connection)
        expected = [] if name == "other" else ["from limited", "goes on"]
        equal(await received_texts(subscription), expected, name)


@case
async def lame_duck(context):
    clients = []
    for _ in range(5):
        told, tell = teller()
        client = await context.connect(lame_duck_mode_cb=tell)
        await round_trip(client)
        clients.append((client, told))
    await context.ask("lame duck")
    for client, told in clients:
        await happens("the client is told", told)
        await round_trip(client)
    await raises(NoServersError, context.connect(max_reconnect_attempts=1))


@case
async def large_payloads(context):
    sizes = [0, 1, 511, 4096, 65_535, 65_536, 300_000, 1_048_575, 1_048_576]

    async def mirror(message):
        await message.respond(message.data)

    await context.subscribed("mirror", cb=mirror)
    client = await context.connect()
    wheel = bytes(index * 31 % 251 for index in range(251)) * (sizes[-1] // 251 + 2)
    for turn, size in enumerate(sizes * 2):
        payload = wheel[turn : turn + size]
        answer = await client.request("mirror", payload, timeout=PATIENCE)
        assert answer.data == payload, f"{size} bytes came back changed"


@case
async def order(context):
    count = 500
    subscribers = [await context.subscribed("from.>") for _ in range(4)]
    publishers = [await context.connect() for _ in range(4)]

    async def publish_all(number, connection):
        for index in range(count):
            await connection.publish(f"from.{number}.lane.{index * index % 7}", str(index).encode())
            if index % 50 == 0:
                await asyncio.sleep(0)
        await round_trip(connection)

    await asyncio.gather(*(publish_all(number, connection) for number, connection in enumerate(publishers)))
    for connection, subscription in subscribers:
        await round_trip(connection)
        by_publisher = {}
        for message in await received(subscription):
            by_publisher.setdefault(message.subject.split(".")[1], []).append(int(message.data))
        equal(by_publisher, {str(number): list(range(count)) for number in range(len(publishers))})


@case
async def server_info(context):
    client_ids = set()
    for _ in range(5):
        client = await context.connect(name="an inquirer")
        version = client.connected_server_version
        equal((version.major, version.minor, version.patch), (2, 15, 1))
        equal((client.max_payload, client.client_ip), (1024 * 1024, "127.0.0.1"))
        equal(f"nats://{client.connected_url.netloc}", context.url)
        client_ids.add(client.client_id)
    equal(len(client_ids), 5, "connection ids are unique:")


@case
async def pings(context):
    disconnected, tell_disconnected = teller()
    pinging = await context.connect(ping_interval=0.02, max_outstanding_pings=100, disconnected_cb=tell_disconnected)
    assert 0 < await pinging.rtt() < PATIENCE
    await holds("ten pings of the client are answered", lambda: pinging._pongs_received >= 10)

    # Without answers this server gives up at its fifth ping.
    idle = await context.connect(disconnected_cb=tell_disconnected)
    answered = 0
    process_ping = idle._process_ping

    async def counted():
        nonlocal answered
        await process_ping()
        answered += 1

    idle._process_ping = counted
    await holds("six pings of the server are answered", lambda: answered >= 6)
    assert not disconnected.is_set(), "answers keep a connection"


@case
async def timeouts(context):
    _silent, requests = await context.subscribed("silence")
    client = await context.connect()
    await raises(TimeoutError, client.request("silence", b"hello?", timeout=0.1))
    await raises(TimeoutError, client.request("silence", b"hello?", timeout=0.1, old_style=True))
    equal((await requests.next_msg(PATIENCE)).data, b"hello?")
    subscription = await client.subscribe("nothing.comes")
    await raises(TimeoutError, subscription.next_msg(timeout=0.05))
    await round_trip(client)


async def main():
    name, url, *arguments = sys.argv[1:]
    context = Context(url, arguments)
    await CASES[name](context)
    await context.close()
    print(json.dumps({"case": name, "passed": True}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
