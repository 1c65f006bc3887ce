// Cases for the NATS client in Node: `suite.mjs CASE URL [ARGUMENT…]`. The client is taken from the directory named in
// CLIENT_DIR, where its pinned version is installed.
//
// A case that passes prints `{"passed": true}` as its last line and exits with 0; one that fails shows why and exits
// with 1. A case that needs its server stopped or started prints `{"ask": …}` and waits for the answering line on
// standard input.
//
// Where a case says that something does not arrive, it does not wait for it not to arrive: whoever has seen any answer
// of the server finds, with the next thing it sends on whatever connection, everything done that led to that answer.
// So after a flush of the publisher and then one of the subscriber, what the subscriber has not got was not sent. A
// flush of this client is a round trip: it sends PING after all that came before, and waits for PONG.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

import { PATIENCE, ascending, ask, numbers, pass, within } from "./common.mjs";

const requireClient = createRequire(join(process.env.CLIENT_DIR, "package.json"));
const { connect, createInbox, credsAuthenticator, errors, headers: newHeaders, nkeyAuthenticator } = requireClient(
  "@nats-io/transport-node",
);
const { wsconnect } = requireClient("@nats-io/nats-core");

const [caseName, url, ...args] = process.argv.slice(2);
const address = url.replace("nats://", "");
const connections = [];

/**
 * Over WebSocket the client needs one: recent versions of Node have it, older ones take that of a package. The extension
 * that is agreed on is to be that of CLIENT_WS_EXTENSION.
 */
const overWebSocket = /^wss?:/.test(url);
if (overWebSocket) {
  globalThis.WebSocket ??= requireClient("ws");
  globalThis.WebSocket = class extends globalThis.WebSocket {
    constructor(...options) {
      super(...options);
      this.addEventListener("open", () => {
        assert.equal(this.extensions.split(";")[0], process.env.CLIENT_WS_EXTENSION ?? "");
      });
    }
  };
}

/** How to use TLS: `ca`, `cert`, `key` (files) and `first`. */
const tls = JSON.parse(process.env.CLIENT_TLS ?? "null");
const tlsOptions = tls ? { tls: { caFile: tls.ca, certFile: tls.cert, keyFile: tls.key, handshakeFirst: tls.first } } : {};

const cases = {
  async publish_subscribe() {
    const publisher = await open();
    const subscribers = await several(5, () => subscribed("orders.new"));
    const expected = numbers(1000).map((index) => `order ${index}`);
    expected.forEach((text) => publisher.publish("orders.new", text));
    await publisher.flush();
    for (const { connection, messages } of subscribers) {
      await connection.flush();
      assert.deepEqual(texts(messages), expected);
    }
  },

  async wildcards() {
    const subjects = ["a", "a.b", "a.c", "a.b.c", "a.b.c.d", "b.b", "ab.b"];
    const expected = {
      "a.*": ["a.b", "a.c"],
      "*.b": ["a.b", "b.b", "ab.b"],
      "a.>": ["a.b", "a.c", "a.b.c", "a.b.c.d"],
      "a.*.c": ["a.b.c"],
      "*.*.>": ["a.b.c", "a.b.c.d"],
      ">": subjects,
    };
    const publisher = await open();
    const subscribers = [];
    for (const pattern of Object.keys(expected)) {
      subscribers.push({ pattern, ...(await subscribed(pattern)) });
    }
    subjects.forEach((subject) => publisher.publish(subject));
    await publisher.flush();
    for (const { pattern, connection, messages } of subscribers) {
      await connection.flush();
      assert.deepEqual(messages.map((message) => message.subject), expected[pattern], pattern);
    }
  },

  async queue_groups() {
    const count = 400;
    const publisher = await open();
    const groups = {};
    for (const queue of ["billing", "shipping"]) {
      groups[queue] = await several(4, () => subscribed("orders.*", { queue }));
    }
    const observer = await subscribed("orders.*");
    numbers(count).forEach((index) => publisher.publish("orders.new", `${index}`));
    await publisher.flush();
    await observer.connection.flush();
    assert.deepEqual(texts(observer.messages).map(Number), numbers(count));
    for (const [queue, members] of Object.entries(groups)) {
      const shares = [];
      for (const { connection, messages } of members) {
        await connection.flush();
        const share = texts(messages).map(Number);
        assert.notEqual(share.length, 0, `a member of ${queue} got nothing`);
        assert.deepEqual(share, ascending(share), queue);
        shares.push(...share);
      }
      assert.deepEqual(ascending(shares), numbers(count), queue);
    }
  },

  async first_answer_wins() {
    await responders("time.now", 5);
    const client = await open();
    for (const index of numbers(40)) {
      const answer = await client.request("time.now", `question ${index}`, { timeout: PATIENCE });
      assert.match(answer.string(), new RegExp(` to question ${index}$`));
    }
  },

  async gather_answers() {
    await responders("who.is.there", 5);
    const client = await open();
    for (const noMux of [false, true]) {
      const options = { strategy: "count", maxMessages: 5, maxWait: PATIENCE, noMux };
      const names = [];
      for await (const answer of await client.requestMany("who.is.there", "hello", options)) {
        names.push(answer.string());
      }
      assert.deepEqual(names.sort(), numbers(5).map((index) => `responder ${index} to hello`));
    }
  },

  async no_responders() {
    const client = await open();
    const { connection, subscription } = await subscribed("service");
    for (const noMux of [false, true]) {
      const options = { timeout: PATIENCE, noMux };
      await assert.rejects(client.request("other.service", "?", options), isNoResponders);
    }
    subscription.unsubscribe();
    await connection.flush();
    await assert.rejects(client.request("service", "?", { timeout: PATIENCE }), isNoResponders);
  },

  async headers() {
    const sent = newHeaders();
    sent.set("Content-Type", "text/plain; charset=utf-8");
    for (const tag of ["red", "green: and yellow", "blå"]) {
      sent.append("X-Tag", tag);
    }
    sent.set("x-tag", "another key");
    const publisher = await open();
    const { connection, messages } = await subscribed("with.headers");
    publisher.publish("with.headers", "body", { headers: sent });
    publisher.publish("with.headers", "", { headers: sent });
    publisher.publish("with.headers", "none");
    await publisher.flush();
    await connection.flush();
    assert.deepEqual(texts(messages), ["body", "", "none"]);
    for (const { headers } of messages.slice(0, 2)) {
      assert.deepEqual(headers.values("X-Tag"), ["red", "green: and yellow", "blå"]);
      assert.equal(headers.get("Content-Type"), "text/plain; charset=utf-8");
      assert.equal(headers.get("x-tag"), "another key");
      assert.equal(headers.code, 0);
    }
    assert.equal(messages[2].headers, undefined);
  },

  async subscription_drain() {
    // Publishing goes on while one of two members drains: what it still gets and what the other gets is everything.
    const publisher = await open();
    const [leaver, stayer] = await several(2, () => subscribed("jobs", { queue: "workers" }));
    const count = await publishUntil(publisher, "jobs", async (published) => {
      await published(200);
      await leaver.subscription.drain();
      await published(200);
    });
    const handled = leaver.messages.length;
    await publisher.flush();
    await stayer.connection.flush();
    assert.deepEqual(ascending(texts([...leaver.messages, ...stayer.messages]).map(Number)), numbers(count));
    assert.equal(leaver.messages.length, handled, "a drained subscription gets nothing more");
    assert.ok(leaver.subscription.isClosed(), "a drained subscription is closed");
  },

  async connection_drain() {
    // As above with whole connections, where every handled message is answered by a publish of the worker.
    const publisher = await open();
    const results = await subscribed("results");
    const workers = await several(2, async () => {
      const connection = await open();
      connection.subscribe("jobs", {
        queue: "workers",
        callback: (_error, message) => connection.publish("results", message.data),
      });
      await connection.flush();
      return connection;
    });
    const count = await publishUntil(publisher, "jobs", async (published) => {
      await published(200);
      await workers[0].drain();
      await published(200);
    });
    assert.ok(workers[0].isClosed(), "a drained connection is closed");
    assert.throws(() => workers[0].publish("results", "late"), errors.ClosedConnectionError);
    await publisher.flush();
    await workers[1].drain();
    await results.connection.flush();
    assert.deepEqual(ascending(texts(results.messages).map(Number)), numbers(count));
    await assert.rejects(publisher.request("jobs", "late", { timeout: PATIENCE }), isNoResponders);
  },

  async flush() {
    const { connection, messages } = await subscribed("flushed");
    const publisher = await open();
    numbers(2000).forEach((index) => publisher.publish("flushed", `${index}`));
    await publisher.flush();
    await connection.flush();
    assert.deepEqual(texts(messages).map(Number), numbers(2000));
  },

  async restart() {
    const client = await open();
    const events = watch(client);
    const plain = listen(client, "kept.*");
    const member = listen(client, "kept.>", { queue: "group" });
    await client.flush();
    // What is published before an attempt to connect is lost with that attempt, by this client's design; what is
    // published during the attempt that succeeds is sent after the subscriptions.
    let attempts = 0;
    events.on.reconnecting = () => client.publish("kept.meanwhile", `attempt ${++attempts}`);

    await ask("stop");
    await events.await("disconnect");
    await ask("start");
    await events.await("reconnect");
    await client.flush();
    assert.deepEqual(texts(plain.messages), [`attempt ${attempts}`]);
    assert.deepEqual(texts(member.messages), [`attempt ${attempts}`]);

    const other = await open();
    other.publish("kept.later", "from another");
    await other.flush();
    await client.flush();
    assert.deepEqual(texts(plain.messages), [`attempt ${attempts}`, "from another"]);
    assert.deepEqual(texts(member.messages), [`attempt ${attempts}`, "from another"]);
  },

  async max_payload() {
    const limit = 2048;
    const client = await open();
    assert.equal(client.info.max_payload, limit);
    const { connection, messages } = await subscribed("limited");
    const headers = newHeaders();
    headers.set("Key", "value");
    assert.throws(() => client.publish("limited", new Uint8Array(limit + 1)), errors.InvalidArgumentError);
    assert.throws(() => client.publish("limited", new Uint8Array(limit), { headers }), errors.InvalidArgumentError);
    client.publish("limited", new Uint8Array(limit));
    await client.flush();

    // A client that has been told another limit is refused by the server.
    const careless = await open({ reconnect: false });
    const events = watch(careless);
    careless.info.max_payload = 2 * limit;
    careless.publish("limited", new Uint8Array(limit + 1));
    const { error } = await events.await("error");
    assert.match(error.message, /maximum payload violation/i);
    await careless.closed();

    await client.flush();
    await connection.flush();
    assert.deepEqual(messages.map((message) => message.data.length), [limit]);
  },

  async slow_consumer() {
    const batch = 16;
    // 48 MiB: more than socket buffers hold, less than the default of max_pending.
    const floodMax = 1536;
    // Less than the default of write_deadline.
    const limit = 8000;
    const slow = await open();
    const events = watch(slow);
    listen(slow, "flood");
    listen(slow, "slow.client");
    await slow.flush();
    const { socket } = slow.protocol.transport;
    socket.pause();

    const flood = await subscribed("flood");
    const publisher = await open();
    const inbox = createInbox();
    const answers = listen(publisher, inbox);
    const deadline = Date.now() + limit;
    let sent = 0;
    for (;;) {
      publisher.publish("slow.client", "", { reply: inbox });
      await publisher.flush();
      if (answers.messages.length > 0) {
        break;
      }
      assert.ok(Date.now() < deadline, `still connected after ${sent} messages`);
      if (sent < floodMax) {
        for (const index of numbers(batch)) {
          const payload = Buffer.alloc(32 * 1024);
          payload.writeUInt32BE(sent + index);
          publisher.publish("flood", payload);
        }
        await publisher.flush();
        await flood.connection.flush();
        const got = flood.messages.splice(0).map((message) => Buffer.from(message.data).readUInt32BE());
        assert.deepEqual(got, numbers(batch).map((index) => sent + index));
        sent += batch;
      }
    }
    publisher.publish("flood", "after the cut");
    await publisher.flush();
    await flood.connection.flush();
    assert.deepEqual(texts(flood.messages), ["after the cut"]);

    socket.resume();
    await events.await("disconnect");
    await events.await("reconnect");
    await slow.flush();
  },

  async many_connections() {
    const publisher = await open();
    const subscribers = [];
    for (const _ of numbers(10)) {
      subscribers.push(...(await Promise.all(numbers(20).map(() => subscribed("news")))));
    }
    publisher.publish("news", "to all");
    await publisher.flush();
    for (const { connection, messages } of subscribers) {
      await connection.flush();
      assert.deepEqual(texts(messages), ["to all"]);
    }
  },

  async no_echo() {
    const quiet = await open({ noEcho: true });
    const own = listen(quiet, "room");
    await quiet.flush();
    const other = await subscribed("room");
    quiet.publish("room", "from the quiet one");
    await quiet.flush();
    other.connection.publish("room", "from the other");
    await other.connection.flush();
    await quiet.flush();
    assert.deepEqual(texts(own.messages), ["from the other"]);
    assert.deepEqual(texts(other.messages), ["from the quiet one", "from the other"]);
    other.subscription.unsubscribe();
    await other.connection.flush();
    await assert.rejects(quiet.request("room", "anybody else?", { timeout: PATIENCE }), isNoResponders);
  },

  async auto_unsubscribe() {
    const publisher = await open();
    const connection = await open();
    const drawn = [];
    const subscription = connection.subscribe("lottery", { max: 3 });
    await connection.flush();
    numbers(5).forEach((index) => publisher.publish("lottery", `${index}`));
    for await (const message of subscription) {
      drawn.push(message.string());
    }
    assert.deepEqual(drawn, ["0", "1", "2"]);
    await assert.rejects(publisher.request("lottery", "late", { timeout: PATIENCE }), isNoResponders);
  },

  async password() {
    const [user, pass] = args;
    await (await open({ user, pass })).flush();
    for (const wrong of [{ user, pass: `${pass}x` }, { user, pass: "" }, { user: "bob", pass }, { token: pass }, {}]) {
      await assert.rejects(open(wrong), errors.AuthorizationError);
    }
  },

  async token() {
    const [token] = args;
    await (await open({ token })).flush();
    for (const wrong of [{ token: `${token}x` }, { token: token.toUpperCase() }, { user: token, pass: token }, {}]) {
      await assert.rejects(open(wrong), errors.AuthorizationError);
    }
  },

  async access() {
    const [seed] = args;
    const users = {
      plain: { user: "plain", pass: "secret" },
      hashed: { user: "hashed", pass: "hashed" },
      nkey: { authenticator: nkeyAuthenticator(new TextEncoder().encode(seed)) },
      other: { user: "other", pass: "x" },
    };
    const listeners = {};
    for (const [name, options] of Object.entries(users)) {
      const connection = await open(options);
      listeners[name] = { connection, ...listen(connection, "news.*") };
      await connection.flush();
    }
    for (const wrong of [{ user: "plain", pass: "hashed" }, { user: "hashed", pass: "secret" }, { user: "nobody" }, {}]) {
      await assert.rejects(open(wrong), errors.AuthorizationError);
    }
    await hearWhoIsLimited(listeners, { user: "limited", pass: "x" });
  },

  async credentials() {
    const [own, limited, other, stranger] = args.map((file) => ({ authenticator: credsAuthenticator(readFileSync(file)) }));
    const listeners = {};
    for (const [name, options] of Object.entries({ own, other })) {
      const connection = await open(options);
      listeners[name] = { connection, ...listen(connection, "news.*") };
      await connection.flush();
    }
    for (const wrong of [stranger, {}]) {
      await assert.rejects(open(wrong), errors.AuthorizationError);
    }
    await hearWhoIsLimited(listeners, limited);
  },

  async lame_duck() {
    const clients = await several(5, async () => {
      const connection = await open();
      return { connection, events: watch(connection) };
    });
    await ask("lame duck");
    for (const { connection, events } of clients) {
      await events.await("ldm");
      await connection.flush();
    }
    await assert.rejects(open(), errors.ConnectionError);
  },

  async large_payloads() {
    const sizes = [0, 1, 511, 4096, 65_535, 65_536, 300_000, 1_048_575, 1_048_576];
    const responder = await open();
    responder.subscribe("mirror", { callback: (_error, message) => message.respond(message.data) });
    await responder.flush();
    const client = await open();
    const wheel = Buffer.from(Uint8Array.from({ length: sizes.at(-1) + 32 }, (_, index) => (index * 31) % 251));
    for (const [turn, size] of [...sizes, ...sizes].entries()) {
      const payload = wheel.subarray(turn, turn + size);
      const answer = await client.request("mirror", payload, { timeout: PATIENCE });
      assert.ok(payload.equals(answer.data), `${size} bytes came back changed`);
    }
  },

  async order() {
    const count = 500;
    const subscribers = await several(4, () => subscribed("from.>"));
    const publishers = await several(4, () => open());
    await Promise.all(publishers.map(async (connection, number) => {
      for (const index of numbers(count)) {
        connection.publish(`from.${number}.lane.${(index * index) % 7}`, `${index}`);
        if (index % 50 === 0) {
          await connection.flush();
        }
      }
      await connection.flush();
    }));
    for (const { connection, messages } of subscribers) {
      await connection.flush();
      for (const number of numbers(publishers.length)) {
        const from = messages.filter((message) => message.subject.startsWith(`from.${number}.`));
        assert.deepEqual(texts(from).map(Number), numbers(count));
      }
    }
  },

  async server_info() {
    const clients = await several(5, () => open({ name: "an inquirer" }));
    for (const { info, protocol } of clients) {
      assert.equal(info.version, "2.15.1");
      assert.deepEqual([info.proto, info.headers, info.max_payload], [1, true, 1024 * 1024]);
      assert.deepEqual([info.client_ip, `${info.host}:${info.port}`], ["127.0.0.1", address]);
      assert.ok(!info.auth_required && !info.tls_required && !info.ldm);
      for (const feature of ["js_new_consumer_create", "js_multiple_consumer_filter", "js_priority_groups"]) {
        assert.ok(protocol.features.supports(feature), `${feature} is on`);
      }
    }
    assert.equal(new Set(clients.map(({ info }) => info.client_id)).size, clients.length);
    assert.equal(new Set(clients.map(({ info }) => info.server_id)).size, 1, "all shards are one server");
  },

  async pings() {
    const pinging = await open({ pingInterval: 20, maxPingOut: 100 });
    const pingingEvents = watch(pinging);
    assert.ok((await pinging.rtt()) < PATIENCE);
    await within("ten answers of the server", calls(pinging.protocol, "processPong", 10));

    // Without answers this server gives up at its fifth ping.
    const idle = await open();
    const idleEvents = watch(idle);
    await within("six pings of the server", calls(idle.protocol, "processPing", 6));
    assert.deepEqual([...pingingEvents.seen("disconnect"), ...idleEvents.seen("disconnect")], []);
  },

  async timeouts() {
    const { messages, connection } = await subscribed("silence");
    const client = await open();
    for (const noMux of [false, true]) {
      await assert.rejects(client.request("silence", "hello?", { timeout: 100, noMux }), errors.TimeoutError);
    }
    await connection.flush();
    assert.deepEqual(texts(messages), ["hello?", "hello?"]);
    const waiting = client.subscribe("nothing.comes", { timeout: 50 });
    await assert.rejects((async () => { for await (const _ of waiting); })(), errors.TimeoutError);
    await client.flush();
  },
};

async function open(options = {}) {
  const connection = await (overWebSocket ? wsconnect : connect)({
    servers: overWebSocket ? url : address,
    timeout: PATIENCE,
    reconnectTimeWait: 20,
    reconnectDelayHandler: () => 20,
    maxReconnectAttempts: -1,
    ...tlsOptions,
    ...options,
  });
  connections.push(connection);
  return connection;
}

/** Subscribes and collects the messages. */
function listen(connection, subject, options = {}) {
  const messages = [];
  const callback = (error, message) => {
    assert.equal(error, null);
    messages.push(message);
  };
  return { subscription: connection.subscribe(subject, { callback, ...options }), messages };
}

/** A connection with a subscription that is in force. */
async function subscribed(subject, options) {
  const connection = await open();
  const listener = listen(connection, subject, options);
  await connection.flush();
  return { connection, ...listener };
}

/** Connects so many responders, each naming itself in its answer. */
async function responders(subject, count) {
  for (const index of numbers(count)) {
    const connection = await open();
    connection.subscribe(subject, {
      callback: (_error, message) => message.respond(`responder ${index} to ${message.string()}`),
    });
    await connection.flush();
  }
}

/** A user that may not do everything is told so, and all listeners but "other" hear what it may publish. */
async function hearWhoIsLimited(listeners, options) {
  const limited = await open(options);
  const events = watch(limited);
  limited.publish("news.today", "from limited");
  limited.publish("secret.news", "not for them");
  const { error } = await events.await("error");
  assert.ok(error instanceof errors.PermissionViolationError, `${error}`);
  assert.deepEqual([error.operation, error.subject], ["publish", "secret.news"]);
  const denied = new Promise((resolve) => limited.subscribe("secret.>", { callback: resolve }));
  const violation = await within("the subscription is denied", denied);
  assert.ok(violation instanceof errors.PermissionViolationError, `${violation}`);
  assert.deepEqual([violation.operation, violation.subject], ["subscription", "secret.>"]);
  limited.publish("news.today", "goes on");
  await limited.flush();
  for (const [name, { connection, messages }] of Object.entries(listeners)) {
    await connection.flush();
    assert.deepEqual(texts(messages), name === "other" ? [] : ["from limited", "goes on"], name);
  }
}

/**
 * Publishes 0, 1, 2, … in the background until `meanwhile` is done, and returns how many. `meanwhile` gets a function
 * that waits for so many further messages.
 */
async function publishUntil(publisher, subject, meanwhile) {
  let sent = 0;
  let finished = false;
  const background = (async () => {
    while (!finished) {
      publisher.publish(subject, `${sent}`);
      sent += 1;
      if (sent % 10 === 0) {
        await publisher.flush();
      }
    }
  })();
  await meanwhile(async (more) => {
    const wanted = sent + more;
    while (sent < wanted) {
      await publisher.flush();
    }
  });
  finished = true;
  await background;
  return sent;
}

/** Collects the status events of a connection; `await` takes the next one of a type, `on` holds immediate handlers. */
function watch(connection) {
  const unread = [];
  const waiting = [];
  const events = {
    on: {},
    seen: (type) => unread.filter((status) => status.type === type),
    await(type) {
      return within(`the event ${type}`, new Promise((resolve) => {
        waiting.push({ type, resolve });
        settle();
      }));
    },
  };
  function settle() {
    for (const waiter of [...waiting]) {
      const index = unread.findIndex((status) => status.type === waiter.type);
      if (index >= 0) {
        waiting.splice(waiting.indexOf(waiter), 1);
        waiter.resolve(...unread.splice(index, 1));
      }
    }
  }
  (async () => {
    for await (const status of connection.status()) {
      events.on[status.type]?.(status);
      unread.push(status);
      settle();
    }
  })();
  return events;
}

/** Resolves when a method of an object has been called so many times. */
function calls(object, method, count) {
  const original = object[method].bind(object);
  return new Promise((resolve) => {
    let called = 0;
    object[method] = (...parameters) => {
      original(...parameters);
      called += 1;
      if (called === count) {
        resolve();
      }
    };
  });
}

async function several(count, make) {
  const made = [];
  for (const index of numbers(count)) {
    made.push(await make(index));
  }
  return made;
}

function isNoResponders(error) {
  return error instanceof errors.RequestError && error.isNoResponders();
}

function texts(messages) {
  return messages.map((message) => message.string());
}

await cases[caseName]();
await Promise.all(connections.map((connection) => connection.close()));
pass(caseName);
