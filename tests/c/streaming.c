// Cases for the streaming client in C: `streaming CASE URL`. As with the other clients, a case that passes prints
// {"passed": true} as its last line and exits with 0, and one that needs its server killed or started prints a line
// {"ask": …} and waits for the answering line on standard input.

#include <nats/nats.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PATIENCE_S = 15, MESSAGES_MAX = 1024 };

static const char *const CHANNELS[] = {"orders.0", "orders.1", "orders.2", "orders.3", "orders.4", "orders.5"};
static const char *const REPLACED = "client has been replaced or is no longer registered";

static const char *url;

static void fail(int line, const char *what, const char *why)
{
    fprintf(stderr, "line %d: %s: %s\n", line, what, why);
    exit(1);
}

#define CHECK(condition) ((condition) ? (void) 0 : fail(__LINE__, #condition, "does not hold"))

#define OK(call)                                                                                                       \
    do {                                                                                                               \
        natsStatus status_ = (call);                                                                                   \
        if (status_ != NATS_OK) {                                                                                      \
            const char *last_ = nats_GetLastError(NULL);                                                               \
            fail(__LINE__, #call, last_ != NULL ? last_ : natsStatus_GetText(status_));                                \
        }                                                                                                              \
    } while (0)

#define EACH_CHANNEL(name)                                                                                             \
    for (size_t at_ = 0; at_ < sizeof CHANNELS / sizeof *CHANNELS; at_++)                                              \
        for (const char *name = CHANNELS[at_]; name != NULL; name = NULL)

/** What the library's threads have brought. */
struct seen {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int count;
    int errors;
    stanMsg *messages[MESSAGES_MAX];
    char text[256];
};

static void seen_init(struct seen *seen)
{
    memset(seen, 0, sizeof *seen);
    pthread_mutex_init(&seen->lock, NULL);
    pthread_cond_init(&seen->changed, NULL);
}

static void seen_one(struct seen *seen, stanMsg *message, const char *error)
{
    pthread_mutex_lock(&seen->lock);
    if (message != NULL && seen->count < MESSAGES_MAX)
        seen->messages[seen->count] = message;
    seen->count++;
    if (error != NULL) {
        seen->errors++;
        snprintf(seen->text, sizeof seen->text, "%s", error);
    }
    pthread_cond_broadcast(&seen->changed);
    pthread_mutex_unlock(&seen->lock);
}

static int seen_count(struct seen *seen)
{
    pthread_mutex_lock(&seen->lock);
    int count = seen->count;
    pthread_mutex_unlock(&seen->lock);
    return count;
}

/** Waits until so much has come. */
static void seen_await(struct seen *seen, int count)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_S;
    pthread_mutex_lock(&seen->lock);
    while (seen->count < count)
        if (pthread_cond_timedwait(&seen->changed, &seen->lock, &until) != 0) {
            char why[64];
            snprintf(why, sizeof why, "%d of %d have come", seen->count, count);
            fail(__LINE__, "waited in vain", why);
        }
    pthread_mutex_unlock(&seen->lock);
}

/** Checks one message that has come: its number and whether it is flagged. */
static void seen_is(struct seen *seen, int at, uint64_t sequence, bool redelivered)
{
    seen_await(seen, at + 1);
    CHECK(at < MESSAGES_MAX);
    if (stanMsg_GetSequence(seen->messages[at]) != sequence ||
        stanMsg_IsRedelivered(seen->messages[at]) != redelivered) {
        char why[96];
        snprintf(why, sizeof why, "message %d is %llu, flag %d", at,
                 (unsigned long long) stanMsg_GetSequence(seen->messages[at]),
                 stanMsg_IsRedelivered(seen->messages[at]));
        fail(__LINE__, "not the message that was due", why);
    }
}

static void on_message(stanConnection *sc, stanSubscription *sub, const char *channel, stanMsg *message, void *closure)
{
    (void) sc;
    (void) sub;
    (void) channel;
    seen_one(closure, message, NULL);
}

static void on_ack(const char *guid, const char *error, void *closure)
{
    (void) guid;
    seen_one(closure, NULL, error);
}

static void on_lost(stanConnection *sc, const char *error, void *closure)
{
    (void) sc;
    seen_one(closure, NULL, error != NULL ? error : "");
}

static void on_reconnect(natsConnection *nc, void *closure)
{
    (void) nc;
    seen_one(closure, NULL, NULL);
}

/** Connects, with pings every second; `lost` and `reconnected` may be NULL. */
static natsStatus connect_as(stanConnection **sc, const char *cluster, const char *id, struct seen *lost,
                             struct seen *reconnected)
{
    natsOptions *nats = NULL;
    stanConnOptions *options = NULL;
    OK(natsOptions_Create(&nats));
    OK(natsOptions_SetReconnectWait(nats, 50));
    OK(natsOptions_SetMaxReconnect(nats, 1000000));
    if (reconnected != NULL)
        OK(natsOptions_SetReconnectedCB(nats, on_reconnect, reconnected));
    OK(stanConnOptions_Create(&options));
    OK(stanConnOptions_SetNATSOptions(options, nats));
    OK(stanConnOptions_SetURL(options, url));
    OK(stanConnOptions_SetPings(options, 1, 30));
    if (lost != NULL)
        OK(stanConnOptions_SetConnectionLostHandler(options, on_lost, lost));
    natsStatus status = stanConnection_Connect(sc, cluster, id, options);
    stanConnOptions_Destroy(options);
    natsOptions_Destroy(nats);
    return status;
}

static stanConnection *connected(const char *id)
{
    stanConnection *sc = NULL;
    OK(connect_as(&sc, "test-cluster", id, NULL, NULL));
    return sc;
}

static void publish(stanConnection *sc, const char *channel, int first, int last)
{
    for (int number = first; number <= last; number++) {
        char text[32];
        OK(stanConnection_Publish(sc, channel, text, snprintf(text, sizeof text, "m%d", number)));
    }
}

/** A subscription from the first message on, acknowledged by hand; `durable` and `group` may be NULL. */
static stanSubscription *subscribed(stanConnection *sc, const char *channel, struct seen *seen, const char *durable,
                                    const char *group, int in_flight, int64_t ack_wait_ms)
{
    stanSubscription *sub = NULL;
    stanSubOptions *options = NULL;
    OK(stanSubOptions_Create(&options));
    OK(stanSubOptions_DeliverAllAvailable(options));
    OK(stanSubOptions_SetManualAckMode(options, true));
    OK(stanSubOptions_SetMaxInflight(options, in_flight));
    OK(stanSubOptions_SetAckWait(options, ack_wait_ms));
    if (durable != NULL)
        OK(stanSubOptions_SetDurableName(options, durable));
    if (group != NULL)
        OK(stanConnection_QueueSubscribe(&sub, sc, channel, group, on_message, seen, options));
    else
        OK(stanConnection_Subscribe(&sub, sc, channel, on_message, seen, options));
    stanSubOptions_Destroy(options);
    return sub;
}

static struct seen *new_seen(void)
{
    struct seen *seen = malloc(sizeof *seen);
    CHECK(seen != NULL);
    seen_init(seen);
    return seen;
}

static void ask(const char *request)
{
    char answer[16] = "";
    printf("{\"ask\": \"%s\"}\n", request);
    fflush(stdout);
    CHECK(fgets(answer, sizeof answer, stdin) != NULL && strcmp(answer, "done\n") == 0);
}

static void case_connect(void)
{
    stanConnection *first = connected("c1");
    stanConnection *second = NULL;
    CHECK(connect_as(&second, "test-cluster", "c1", NULL, NULL) != NATS_OK);
    CHECK(strstr(nats_GetLastError(NULL), "stan: clientID already registered") != NULL);
    CHECK(connect_as(&second, "test-cluster", "a.b", NULL, NULL) != NATS_OK);
    CHECK(connect_as(&second, "another", "c2", NULL, NULL) != NATS_OK);
    publish(first, CHANNELS[0], 1, 1);
    OK(stanConnection_Close(first));
    stanConnection_Destroy(first);
    stanConnection_Destroy(connected("c1"));
}

static void case_publish_async(void)
{
    enum { TOTAL = 10000 };
    stanConnection *sc = connected("c1");
    struct seen *acks = new_seen();
    for (int number = 0; number < TOTAL; number++)
        EACH_CHANNEL(channel)
        OK(stanConnection_PublishAsync(sc, channel, "payload", 7, on_ack, acks));
    seen_await(acks, TOTAL * (int) (sizeof CHANNELS / sizeof *CHANNELS));
    CHECK(acks->errors == 0);
    EACH_CHANNEL(channel)
    {
        // A plain subscription from the last message on knows how many there are.
        stanSubscription *sub = NULL;
        stanSubOptions *options = NULL;
        struct seen *seen = new_seen();
        OK(stanSubOptions_Create(&options));
        OK(stanSubOptions_StartWithLastReceived(options));
        OK(stanConnection_Subscribe(&sub, sc, channel, on_message, seen, options));
        seen_is(seen, 0, TOTAL, false);
        CHECK(stanMsg_GetDataLength(seen->messages[0]) == 7);
        CHECK(memcmp(stanMsg_GetData(seen->messages[0]), "payload", 7) == 0);
        OK(stanSubscription_Unsubscribe(sub));
        stanSubOptions_Destroy(options);
        stanSubscription_Destroy(sub);
    }
    OK(stanConnection_Close(sc));
    stanConnection_Destroy(sc);
}

static void case_manual_acks(void)
{
    stanConnection *sc = connected("c1");
    EACH_CHANNEL(channel)
    {
        publish(sc, channel, 1, 10);
        struct seen *seen = new_seen();
        stanSubscription *sub = subscribed(sc, channel, seen, NULL, NULL, 3, 1000);
        for (int at = 0; at < 3; at++)
            seen_is(seen, at, at + 1, false);
        OK(stanSubscription_AckMsg(sub, seen->messages[1]));
        seen_is(seen, 3, 4, false);
        // The others come again when their time is over.
        seen_is(seen, 4, 1, true);
        seen_is(seen, 5, 3, true);
        OK(stanSubscription_Close(sub));
        stanSubscription_Destroy(sub);
    }
    OK(stanConnection_Close(sc));
    stanConnection_Destroy(sc);
}

static void case_durable(void)
{
    stanConnection *sc = connected("c1");
    EACH_CHANNEL(channel)
    {
        publish(sc, channel, 1, 4);
        struct seen *seen = new_seen();
        stanSubscription *sub = subscribed(sc, channel, seen, "d", NULL, 10, 30000);
        seen_await(seen, 4);
        OK(stanSubscription_AckMsg(sub, seen->messages[0]));
        OK(stanSubscription_AckMsg(sub, seen->messages[2]));
        stanSubscription *twice = NULL;
        stanSubOptions *options = NULL;
        OK(stanSubOptions_Create(&options));
        OK(stanSubOptions_SetDurableName(options, "d"));
        CHECK(stanConnection_Subscribe(&twice, sc, channel, on_message, seen, options) != NATS_OK);
        CHECK(strstr(nats_GetLastError(NULL), "stan: duplicate durable registration") != NULL);
        stanSubOptions_Destroy(options);
    }
    // Closing the connection closes the durables, and what was acknowledged just before counts.
    OK(stanConnection_Close(sc));
    stanConnection_Destroy(sc);
    sc = connected("c1");
    EACH_CHANNEL(channel)
    {
        struct seen *seen = new_seen();
        stanSubscription *sub = subscribed(sc, channel, seen, "d", NULL, 10, 30000);
        seen_is(seen, 0, 2, true);
        seen_is(seen, 1, 4, true);
        publish(sc, channel, 5, 5);
        seen_is(seen, 2, 5, false);
        OK(stanSubscription_Unsubscribe(sub));
        stanSubscription_Destroy(sub);
        seen = new_seen();
        sub = subscribed(sc, channel, seen, "d", NULL, 10, 30000);
        seen_is(seen, 0, 1, false);
        stanSubscription_Destroy(sub);
    }
    OK(stanConnection_Close(sc));
    stanConnection_Destroy(sc);
}

static void case_queue(void)
{
    stanConnection *a = connected("a"), *b = connected("b");
    EACH_CHANNEL(channel)
    {
        struct seen *at_a = new_seen(), *at_b = new_seen();
        stanSubscription *sub_a = subscribed(a, channel, at_a, "d", "g", 10, 30000);
        stanSubscription *sub_b = subscribed(b, channel, at_b, "d", "g", 10, 30000);
        publish(a, channel, 1, 10);
        seen_await(at_a, 5);
        seen_await(at_b, 5);
        CHECK(seen_count(at_a) == 5 && seen_count(at_b) == 5);
        OK(stanSubscription_Close(sub_b));
        for (int at = 0; at < 5; at++)
            seen_is(at_a, 5 + at, stanMsg_GetSequence(at_b->messages[at]), true);
        for (int at = 0; at < 10; at++)
            if (stanMsg_GetSequence(at_a->messages[at]) != 7)
                OK(stanSubscription_AckMsg(sub_a, at_a->messages[at]));
        OK(stanSubscription_Close(sub_a));
        publish(a, channel, 11, 11);
        struct seen *next = new_seen();
        stanSubscription *sub = subscribed(b, channel, next, "d", "g", 10, 30000);
        seen_is(next, 0, 7, true);
        seen_is(next, 1, 11, false);
        stanSubscription_Destroy(sub_a);
        stanSubscription_Destroy(sub_b);
        stanSubscription_Destroy(sub);
    }
    OK(stanConnection_Close(a));
    OK(stanConnection_Close(b));
    stanConnection_Destroy(a);
    stanConnection_Destroy(b);
}

static void case_restart(void)
{
    struct seen *lost = new_seen(), *back = new_seen();
    stanConnection *sc = NULL;
    OK(connect_as(&sc, "test-cluster", "c1", lost, back));
    struct seen *seen[sizeof CHANNELS / sizeof *CHANNELS];
    stanSubscription *subs[sizeof CHANNELS / sizeof *CHANNELS];
    size_t at = 0;
    EACH_CHANNEL(channel)
    {
        seen[at] = new_seen();
        subs[at] = subscribed(sc, channel, seen[at], NULL, NULL, 100, 1000);
        publish(sc, channel, 1, 3);
        seen_await(seen[at], 3);
        at++;
    }
    ask("kill");
    ask("start");
    seen_await(back, 1);
    at = 0;
    EACH_CHANNEL(channel)
    {
        publish(sc, channel, 4, 4);
        // Whatever was not acknowledged comes again, and what is new comes; then acknowledgements go where they went.
        bool all[5] = {true, false, false, false, false};
        for (int next = 3; !(all[1] && all[2] && all[3] && all[4]); next++) {
            seen_await(seen[at], next + 1);
            CHECK(next < MESSAGES_MAX);
            uint64_t sequence = stanMsg_GetSequence(seen[at]->messages[next]);
            CHECK(sequence >= 1 && sequence <= 4);
            all[sequence] = true;
            OK(stanSubscription_AckMsg(subs[at], seen[at]->messages[next]));
        }
        OK(stanSubscription_Close(subs[at]));
        stanSubscription_Destroy(subs[at]);
        at++;
    }
    CHECK(seen_count(lost) == 0);
    OK(stanConnection_Close(sc));
    stanConnection_Destroy(sc);
}

static void case_forgotten(void)
{
    struct seen *lost = new_seen();
    stanConnection *sc = NULL;
    OK(connect_as(&sc, "test-cluster", "c1", lost, NULL));
    publish(sc, CHANNELS[0], 1, 1);
    ask("kill");
    ask("start");
    seen_await(lost, 1);
    CHECK(strcmp(lost->text, REPLACED) == 0);
    stanConnection_Destroy(sc);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } cases[] = {
        {"connect", case_connect},       {"publish_async", case_publish_async}, {"manual_acks", case_manual_acks},
        {"durable", case_durable},       {"queue", case_queue},                 {"restart", case_restart},
        {"forgotten", case_forgotten},
    };
    CHECK(argc == 3);
    url = argv[2];
    OK(nats_Open(-1));
    for (size_t at = 0; at < sizeof cases / sizeof *cases; at++)
        if (strcmp(cases[at].name, argv[1]) == 0) {
            cases[at].run();
            printf("{\"passed\": true}\n");
            return 0;
        }
    fail(__LINE__, argv[1], "no such case");
}
