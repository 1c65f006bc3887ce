// Cases for the streaming client in Node: `streaming.mjs CASE URL MONITOR CHANNELS`, where MONITOR is the URL of the
// monitoring port and CHANNELS the JSON list of channels to use. Everything else is as in `suite.mjs`.
//
// This client drops what comes on a subscription before the answer to it, and acknowledges to nowhere then; so each
// subscription here insists on the answer coming first.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createRequire } from "node:module";
import { join } from "node:path";

import { ascending, ask, numbers, pass, within } from "./common.mjs";

const requireClient = createRequire(join(process.env.CLIENT_DIR, "package.json"));
const stan = requireClient("node-nats-streaming");

const CLUSTER = "test-cluster";
const REPLACED = "client has been replaced or is no longer registered";

const [caseName, url, monitor, channelList] = process.argv.slice(2);
const channels = JSON.parse(channelList);
const clients = [];

const cases = {
  async connect() {
    const client = await connected("c1");
    assert.equal(client.pubPrefix, `_STAN.pub.${CLUSTER}`);
    assert.equal(client.subRequests, `_STAN.sub.${CLUSTER}`);
    assert.equal(client.unsubRequests, `_STAN.unsub.${CLUSTER}`);
    assert.equal(client.subCloseRequests, `_STAN.subclose.${CLUSTER}`);
    assert.equal(client.closeRequests, `_STAN.close.${CLUSTER}`);
    assert.equal(client.pingRequests, `_STAN.discover.${CLUSTER}.pings`);
    assert.equal((await state("clientsz?client=c1")).id, "c1");
  },

  async healthy_id_is_refused() {
    const client = await connected("c1");
    const [error] = await event(open("c1"), "error");
    assert.equal(`${error}`, "stan: clientID already registered");
    await publish(client, channels[0], "still here");
  },

  async killed_id_is_replaced() {
    const victim = await inOwnProcess("victim");
    victim.kill("SIGKILL");
    await once(victim, "exit");
    const begun = Date.now();
    const client = await connected("c1");
    assert.ok(Date.now() - begun < 2000, "the id of a killed process is free soon");
    await publish(client, channels[0], "from the second");
  },

  async wrong_cluster() {
    const client = stan.connect("another", "c1", { url });
    const [error] = await event(client, "error");
    assert.match(`${error}`, /stan: connect request timeout/);
  },

  async connection_lost() {
    const client = await connected("c1", { stanPingInterval: 1000 });
    const lost = event(client, "connection_lost");
    // Its heartbeat inbox is gone, so another takes its id; the next ping tells.
    client.nc.unsubscribe(client.hbSubscription);
    await flushed(client);
    await connected("c1");
    const begun = Date.now();
    const [error] = await lost;
    assert.equal(`${error}`, REPLACED);
    assert.ok(Date.now() - begun < 2000, "the next ping tells");
  },

  async close() {
    const client = await connected("c1");
    const closed = event(client, "close");
    client.close();
    const [error] = await closed;
    assert.equal(error ?? null, null);
    assert.equal((await fetch(`${monitor}/streaming/clientsz?client=c1`)).status, 404);
    await connected("c1");
  },

  async publish_many() {
    const count = 10_000;
    const client = await connected("c1");
    const errors = [];
    await within("the acknowledgements", new Promise((resolve) => {
      let left = count;
      for (const index of numbers(count)) {
        client.publish(channels[index % channels.length], `m${index}`, (error) => {
          if (error) {
            errors.push(`${error}`);
          }
          left -= 1;
          if (left === 0) {
            resolve();
          }
        });
      }
    }));
    assert.deepEqual(errors, []);
    for (const [at, channel] of channels.entries()) {
      const expected = numbers(count).filter((index) => index % channels.length === at).map((index) => `m${index}`);
      const { last_seq: last, msgs } = await state(`channelsz?channel=${channel}`);
      assert.deepEqual([last, msgs], [expected.length, expected.length]);
      const subscription = await subscribed(client, channel, options().setDeliverAllAvailable());
      assert.deepEqual((await subscription.take(expected.length)).map((message) => message.getData()), expected);
    }
  },

  async positions() {
    const client = await connected("c1");
    for (const channel of channels) {
      await publishNumbers(client, channel, 1, 10);
      const subscriptions = [];
      for (const [start, first] of [
        [options().setDeliverAllAvailable(), 1],
        [options().setStartWithLastReceived(), 10],
        [options().setStartAtSequence(7), 7],
        [options().setStartAtSequence(0), 1],
        [options().setStartAtSequence(100), 11],
        [options().setStartAt(stan.StartPosition.NEW_ONLY), 11],
      ]) {
        subscriptions.push({ first, subscription: await subscribed(client, channel, start) });
      }
      await publishNumbers(client, channel, 11, 11);
      for (const { first, subscription } of subscriptions) {
        const expected = numbers(12 - first).map((index) => first + index);
        assert.deepEqual(sequences(await subscription.take(expected.length)), expected);
      }
    }
  },

  async start_time() {
    const client = await connected("c1");
    for (const channel of channels) {
      await publish(client, channel, "early");
    }
    const begun = Date.now();
    await until("the next message is late", () => Date.now() - begun >= 2000);
    for (const channel of channels) {
      await publish(client, channel, "late");
    }
    for (const channel of channels) {
      const half = begun + 1000;
      for (const start of [options().setStartTime(new Date(half)), options().setStartAtTimeDelta(Date.now() - half)]) {
        const subscription = await subscribed(client, channel, start);
        assert.equal((await subscription.take(1))[0].getData(), "late");
      }
    }
  },

  async max_in_flight() {
    const client = await connected("c1");
    for (const channel of channels) {
      await publishNumbers(client, channel, 1, 10);
      const wanted = options().setDeliverAllAvailable().setManualAckMode(true).setMaxInFlight(3);
      const subscription = await subscribed(client, channel, wanted);
      const [first, second, third] = await subscription.take(3);
      assert.deepEqual(sequences([first, second, third]), [1, 2, 3]);
      assert.equal((await only(channel)).is_stalled, true);
      for (const [message, next] of [[second, 4], [third, 5], [first, 6]]) {
        assert.equal(subscription.waiting(), 0);
        message.ack();
        assert.deepEqual(sequences(await subscription.take(1)), [next]);
      }
      const { pending_count: pending, last_sent: last } = await only(channel);
      assert.deepEqual([pending, last], [3, 6]);
      assert.equal(subscription.waiting(), 0);
    }
  },

  async redelivery() {
    const client = await connected("c1");
    const subscriptions = [];
    for (const channel of channels) {
      await publish(client, channel, "x");
      const wanted = options().setDeliverAllAvailable().setManualAckMode(true).setAckWait(1000);
      subscriptions.push(await subscribed(client, channel, wanted));
    }
    for (const subscription of subscriptions) {
      const [first, second, third] = await subscription.take(3);
      assert.deepEqual(sequences([first, second, third]), [1, 1, 1]);
      assert.deepEqual([first, second, third].map((message) => message.isRedelivered()), [false, true, true]);
      assert.deepEqual([second, third].map((message) => message.msg.getRedeliveryCount()), [1, 2]);
    }
  },

  async durable() {
    const client = await connected("c1");
    for (const channel of channels) {
      await publishNumbers(client, channel, 1, 6);
      const wanted = () => options().setDeliverAllAvailable().setManualAckMode(true).setDurableName("d");
      const before = await subscribed(client, channel, wanted());
      const messages = await before.take(6);
      messages[0].ack();
      messages[2].ack();
      await before.close();
      const after = await subscribed(client, channel, wanted());
      const again = await after.take(4);
      assert.deepEqual(sequences(again), [2, 4, 5, 6]);
      assert.ok(again.every((message) => message.isRedelivered()));
      await publishNumbers(client, channel, 7, 7);
      const [next] = await after.take(1);
      assert.deepEqual([next.getSequence(), next.isRedelivered()], [7, false]);
    }
  },

  async durable_of_a_killed_process() {
    const victim = await inOwnProcess("durable_victim");
    for (const channel of channels) {
      await until("the first message is acknowledged", async () => (await only(channel)).pending_count === 3);
    }
    victim.kill("SIGKILL");
    await once(victim, "exit");
    const client = await connected("c1");
    for (const channel of channels) {
      const wanted = options().setDeliverAllAvailable().setManualAckMode(true).setDurableName("d");
      const subscription = await subscribed(client, channel, wanted);
      const again = await subscription.take(3);
      assert.deepEqual(sequences(again), [2, 3, 4]);
      assert.ok(again.every((message) => message.isRedelivered()));
    }
  },

  async queue() {
    const members = [await connected("a"), await connected("b")];
    for (const channel of channels) {
      const subscriptions = [];
      for (const member of members) {
        const wanted = options().setDeliverAllAvailable().setManualAckMode(true);
        subscriptions.push(await subscribed(member, channel, wanted, "g"));
      }
      await publishNumbers(members[0], channel, 1, 10);
      const shares = [];
      for (const subscription of subscriptions) {
        shares.push(...sequences(await subscription.take(5)));
      }
      assert.deepEqual(ascending(shares), numbers(10).map((index) => index + 1));
      assert.deepEqual(subscriptions.map((subscription) => subscription.waiting()), [0, 0]);
    }
  },

  async durable_queue() {
    const [first, second] = [await connected("a"), await connected("b")];
    const wanted = () => options().setDeliverAllAvailable().setManualAckMode(true).setDurableName("d");
    for (const channel of channels) {
      const before = await subscribed(first, channel, wanted(), "g");
      await publishNumbers(first, channel, 1, 3);
      const messages = await before.take(3);
      messages[1].ack();
      await before.close();
      await publishNumbers(first, channel, 4, 4);
      const after = await subscribed(second, channel, wanted(), "g");
      const all = await after.take(3);
      assert.deepEqual(sequences(all), [1, 3, 4]);
      assert.deepEqual(all.map((message) => message.isRedelivered()), [true, true, false]);
    }
  },

  async restart() {
    const client = await connected("c1", { stanPingInterval: 1000 });
    const lost = [];
    client.on("connection_lost", (error) => lost.push(`${error}`));
    const subscriptions = [];
    for (const channel of channels) {
      const wanted = options().setDeliverAllAvailable().setAckWait(1000);
      subscriptions.push(await subscribed(client, channel, wanted));
      await publishNumbers(client, channel, 1, 50);
    }
    await ask("kill");
    const back = event(client, "reconnect");
    await ask("start");
    await back;
    const pings = pingAnswers(client);
    for (const [at, channel] of channels.entries()) {
      await publishNumbers(client, channel, 51, 60);
      const seen = new Set();
      while (seen.size < 60) {
        seen.add((await subscriptions[at].take(1))[0].getSequence());
      }
      assert.deepEqual(ascending(seen), numbers(60).map((index) => index + 1));
      assert.equal((await state(`channelsz?channel=${channel}`)).last_seq, 60);
    }
    await within("two answers to pings", pings(2));
    assert.deepEqual(lost, []);
  },

  async forgotten_after_a_restart() {
    const client = await connected("c1", { stanPingInterval: 1000 });
    await publish(client, channels[0], "x");
    const lost = event(client, "connection_lost");
    await ask("kill");
    const back = event(client, "reconnect");
    await ask("start");
    await back;
    const begun = Date.now();
    assert.equal(`${(await lost)[0]}`, REPLACED);
    assert.ok(Date.now() - begun < 2500, "within two pings");
  },
};

// What the other process does in the cases that kill it.
const victims = {
  async victim() {
    const client = await connected("c1");
    await publish(client, channels[0], "from the first");
  },

  async durable_victim() {
    const client = await connected("c1");
    for (const channel of channels) {
      await publishNumbers(client, channel, 1, 4);
      const wanted = options().setDeliverAllAvailable().setManualAckMode(true).setDurableName("d");
      const [first] = await (await subscribed(client, channel, wanted)).take(4);
      first.ack();
    }
    await flushed(client);
  },
};

function open(id, more = {}) {
  const client = stan.connect(CLUSTER, id, { url, reconnectTimeWait: 50, maxReconnectAttempts: -1, ...more });
  client.on("error", () => {});
  clients.push(client);
  return client;
}

async function connected(id, more) {
  const client = open(id, more);
  const failed = once(client, "error").then(([error]) => Promise.reject(error));
  failed.catch(() => {});
  await within("the registration", Promise.race([once(client, "connect"), failed]));
  return client;
}

/** Resolves with the arguments of the next event of this name, an error included. */
function event(emitter, name) {
  return within(`the event ${name}`, new Promise((resolve) => emitter.once(name, (...values) => resolve(values))));
}

function publish(client, channel, data) {
  return within(
    "an acknowledgement",
    new Promise((resolve, reject) => client.publish(channel, data, (error) => (error ? reject(error) : resolve()))),
  );
}

async function publishNumbers(client, channel, first, last) {
  for (let number = first; number <= last; number += 1) {
    await publish(client, channel, `m${number}`);
  }
}

/** The client's settings for a subscription, to be changed. */
function options() {
  return clients[0].subscriptionOptions();
}

function sequences(messages) {
  return messages.map((message) => message.getSequence());
}

/** A subscription that the server has confirmed, with what it has got. */
async function subscribed(client, channel, wanted, group) {
  const subscription = group ? client.subscribe(channel, group, wanted) : client.subscribe(channel, wanted);
  const messages = [];
  let [wake, ready] = [() => {}, false];
  const failed = new Promise((_, reject) => {
    subscription.on("error", reject);
    subscription.on("timeout", reject);
  });
  failed.catch(() => {});
  subscription.on("message", (message) => {
    assert.ok(ready, "a message has come before the answer to the subscription");
    messages.push(message);
    wake();
  });
  subscription.once("ready", () => (ready = true));
  await within("the answer to the subscription", Promise.race([event(subscription, "ready"), failed]));
  return {
    /** The next messages. */
    async take(count) {
      while (messages.length < count) {
        const woken = new Promise((resolve) => (wake = resolve));
        await within(`message ${count} of ${channel}`, Promise.race([woken, failed]));
      }
      return messages.splice(0, count);
    },
    /** How many messages have come and not been taken. */
    waiting: () => messages.length,
    async close() {
      const closed = event(subscription, "closed");
      subscription.close();
      await Promise.race([closed, failed]);
    },
  };
}

/** Resolves when the server has everything that the client has sent. */
function flushed(client) {
  return within("a flush", new Promise((resolve) => client.nc.flush(resolve)));
}

/** Counts the answers to a client's pings from now on; the result resolves at so many. */
function pingAnswers(client) {
  let [answered, wake] = [0, () => {}];
  client.nc.subscribe(client.pingInbox, () => {
    answered += 1;
    wake();
  });
  return async (count) => {
    while (answered < count) {
      await new Promise((resolve) => (wake = resolve));
    }
  };
}

async function state(path) {
  const answer = await fetch(`${monitor}/streaming/${path}`);
  assert.equal(answer.status, 200, path);
  return answer.json();
}

/** The only subscription of a channel, as monitoring shows it. */
async function only(channel) {
  const { subscriptions } = await state(`channelsz?channel=${channel}&subs=1`);
  assert.equal(subscriptions.length, 1);
  return subscriptions[0];
}

async function until(what, condition) {
  const poll = async () => {
    while (!(await condition())) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  };
  await within(what, poll());
}

/** Another process of this script that has done what it is for, and goes on existing. */
async function inOwnProcess(name) {
  const child = spawn(process.execPath, [process.argv[1], name, url, monitor, channelList], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  await within("the other process", once(child.stdout, "data"));
  return child;
}

if (caseName in victims) {
  await victims[caseName]();
  console.log("ready");
  // Until it is killed, or the process that started it ends.
  process.stdin.resume();
  await once(process.stdin, "end");
  process.exit();
}
await cases[caseName]();
pass(caseName);
// The clients' timers would go on.
process.exit();
