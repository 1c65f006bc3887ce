//! Users that carry tokens: an operator vouches for accounts, accounts for users. The expectations are those of
//! nats-server for the same tokens.

mod support;

use nkeys::KeyPair;
use serde_json::{Value, json};
use support::config::Config;
use support::jwt::{World, connect, limits, now, signed, token, user_jwt};
use support::{Client, PATIENCE, Server, shard_suite, skip_on_peer, wait_until};

shard_suite!(one_shard = 1, three_shards = 3 => {
    users_log_in_with_tokens,
    tokens_that_do_not_fit_are_refused,
    permissions_and_limits_of_users,
    accounts_limit_their_users,
    signing_keys_give_what_their_templates_say,
    users_go_when_their_time_is_over,
    accounts_share_with_each_other,
    activations_open_what_is_private,
    a_reload_brings_other_claims,
    signers_of_users_can_change,
    a_sentinel_lets_in_who_has_no_token,
});

fn log_in(server: &Server, world: &World, jwt: &str) -> Client {
    let client = server.connect();
    let options = world.connect(&client, jwt);
    client.login(&options)
}

fn log_in_as(server: &Server, issuer: &KeyPair, user: &KeyPair, claims: &Value) -> Client {
    let client = server.connect();
    let options = connect(&client, &user_jwt(issuer, user, claims), Some(user));
    client.login(&options)
}

fn expect_refused(server: &Server, jwt: &str, signer: Option<&KeyPair>, what: &str) {
    let mut client = server.connect();
    let options = connect(&client, jwt, signer);
    client.send(format!("CONNECT {options}\r\nPING\r\n"));
    let answer = client.read_to_end();
    assert_eq!(String::from_utf8_lossy(&answer), "-ERR 'Authorization Violation'\r\n", "{what}");
}

fn users_log_in_with_tokens(shards: usize) {
    let world = World::new();
    let server = world.config(&json!({})).server().shards(shards).monitor().start();
    let client = server.connect();
    assert_eq!(client.info()["auth_required"], true);
    let jwt = world.user_jwt(&json!({"tags": ["team:blue"]}));
    let mut options = world.connect(&client, &jwt);
    options["protocol"] = json!(1);
    let mut client = client.login(&options);
    let account = world.account.public_key();
    assert_eq!(client.next_info()["remote_account"], json!(account));
    let connz = server.get_json(&format!("/connz?auth=1&cid={}", client.cid()));
    let shown = &connz["connections"][0];
    for (field, expected) in [
        ("authorized_user", json!(world.user.public_key())),
        ("account", json!(account)),
        ("jwt", json!(jwt)),
        ("issuer_key", json!(account)),
        ("name_tag", json!("acc")),
        ("tags", json!(["team:blue"])),
    ] {
        assert_eq!(shown[field], expected, "{field}");
    }
    let shown = &server.get_json(&format!("/connz?cid={}", client.cid()))["connections"][0];
    assert!(shown.get("jwt").is_none() && shown.get("issuer_key").is_none() && shown.get("tags").is_none());

    // A second CONNECT that says nothing of the user leaves it what it is.
    client.send("SUB a 1\r\nCONNECT {\"verbose\":false}\r\nPUB a 1\r\nx\r\nPING\r\n");
    client.expect("PONG\r\n");
    let signed_by_header = |header: Value| {
        let nats =
            json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1, "src": null, "new": [1]});
        let claims = json!({"iss": account, "sub": world.user.public_key(), "iat": now(), "nats": nats, "x": {}});
        signed(&world.account, &header, &claims)
    };
    log_in(&server, &world, &signed_by_header(json!({"typ": "jwt", "alg": "ed25519", "kid": 1}))).fence();
    let bearer = world.user_jwt(&json!({"bearer_token": true}));
    let client = server.connect();
    let options = connect(&client, &bearer, None);
    client.login(&options).fence();
    expect_refused(&server, &signed_by_header(json!({"typ": "JWT", "alg": "none"})), Some(&world.user), "no algorithm");
}

fn tokens_that_do_not_fit_are_refused(shards: usize) {
    let world = World::new();
    let [stranger, expired, long_expired, later, unsigned, listed] = std::array::from_fn(|_| KeyPair::new_account());
    let self_signed = token(&unsigned, &unsigned.public_key(), &support::jwt::account_claims(), &json!({}));
    let text = world.text(
        &[
            (&world.account, world.account(&json!({}))),
            (&expired, world.account_of(&expired, &json!({}), &json!({"exp": now() - 5}))),
            (&long_expired, world.account_of(&long_expired, &json!({}), &json!({"exp": -5}))),
            (&later, world.account_of(&later, &json!({}), &json!({"nbf": now() + 1000}))),
            (&unsigned, self_signed),
            (&listed, world.account_of(&stranger, &json!({}), &json!({}))),
        ],
        "",
    );
    let server = Config::new(&text).server().shards(shards).start();
    let user = Some(&world.user);
    let of = |claims: Value| world.user_jwt(&claims);
    let with = |standard: Value| {
        let claims = json!({"type": "user", "subs": -1, "data": -1, "payload": -1});
        token(&world.account, &world.user.public_key(), &claims, &standard)
    };
    let good = of(json!({}));
    log_in(&server, &world, &good).fence();
    expect_refused(&server, &good, None, "no signature");
    expect_refused(&server, &good, Some(&KeyPair::new_user()), "signature of another user");
    let mut client = server.connect();
    client.send("PING\r\n");
    client.expect_then_close("-ERR 'Authorization Violation'\r\n");
    let mut client = server.connect();
    client.send("CONNECT {\"user\":\"a\",\"pass\":\"b\"}\r\n");
    client.expect_then_close("-ERR 'Authorization Violation'\r\n");
    let by = |issuer: &KeyPair| user_jwt(issuer, &world.user, &json!({}));
    for (what, jwt) in [
        ("nothing", String::new()),
        ("no token", "x".to_owned()),
        ("two parts", good.rsplit_once('.').expect("three parts").0.to_owned()),
        ("four parts", format!("{good}.x")),
        ("padding", format!("{good}==")),
        ("blank", format!(" {good}")),
        ("cut", good[..good.len() - 2].to_owned()),
        ("an account", world.account(&json!({}))),
        ("expired", with(json!({"exp": now() - 1}))),
        ("not yet valid", with(json!({"nbf": now() + 100}))),
        ("another version", of(json!({"version": 3}))),
        ("no version", of(json!({"version": null}))),
        ("another type", of(json!({"type": "activation"}))),
        ("another connection type", of(json!({"allowed_connection_types": ["WEBSOCKET"]}))),
        ("unknown connection types", of(json!({"allowed_connection_types": ["PIGEON"]}))),
        ("another network", of(json!({"src": ["10.0.0.0/8"]}))),
        ("no network", of(json!({"src": ["127"]}))),
        ("another time", of(json!({"times": [{"start": "00:00:00", "end": "00:00:00"}], "times_location": "UTC"}))),
        ("no time", of(json!({"times": [{"start": "x", "end": "y"}]}))),
        ("no place", of(json!({"times": [{"start": "00:00:00", "end": "23:59:59"}], "times_location": "No/Where"}))),
        ("proxy", of(json!({"proxy_required": true}))),
        ("no subject", of(json!({"pub": {"allow": ["a..b"]}}))),
        ("publish with a queue", of(json!({"pub": {"allow": ["a b"]}}))),
        ("other account", of(json!({"issuer_account": stranger.public_key()}))),
        ("unknown account", by(&stranger)),
        ("expired account", by(&expired)),
        ("account that is not yet valid", by(&later)),
        ("account that nobody vouches for", by(&unsigned)),
        ("account expired before 1970", by(&long_expired)),
        ("account listed under another key", by(&listed)),
        ("unknown signer", user_jwt(&stranger, &world.user, &json!({"issuer_account": world.account.public_key()}))),
    ] {
        expect_refused(&server, &jwt, user, what);
    }
    // The reference logs this one in, and closes the connection at once since the time is over.
    if server.is_leat() {
        expect_refused(&server, &with(json!({"exp": -5})), user, "expired before 1970");
    }
    for claims in [
        json!({"allowed_connection_types": ["PIGEON", "standard"]}),
        json!({"src": ["10.0.0.0/8", "127.0.0.0/8"]}),
        json!({"src": "10.0.0.0/8,127.0.0.0/8"}),
        json!({"times": [{"start": "00:00:00", "end": "12:00:00"}, {"start": "12:00:00", "end": "00:00:00"}],
               "times_location": "Europe/Berlin"}),
        json!({"issuer_account": world.account.public_key()}),
    ] {
        log_in(&server, &world, &of(claims)).fence();
    }
}

fn permissions_and_limits_of_users(shards: usize) {
    let world = World::new();
    let server = world.config(&json!({})).server().shards(shards).start();
    let claims = json!({
        "pub": {"allow": ["p.*"], "deny": ["p.d"]}, "sub": {"allow": ["s.>", "q v.*"]}, "resp": {"max": 1, "ttl": 0}
    });
    let mut client = log_in(&server, &world, &world.user_jwt(&claims));
    client.send("PUB p.a 1\r\nx\r\nPUB p.d 1\r\nx\r\nSUB s.a 1\r\nSUB q 2\r\nSUB q v.1 3\r\nSUB t 4\r\nPING\r\n");
    client.expect(
        "-ERR 'Permissions Violation for Publish to \"p.d\"'\r\n\
         -ERR 'Permissions Violation for Subscription to \"q\"'\r\n\
         -ERR 'Permissions Violation for Subscription to \"t\"'\r\nPONG\r\n",
    );
    let mut asking = log_in(&server, &world, &world.user_jwt(&json!({})));
    asking.send("SUB r 1\r\nPUB s.a r 1\r\n?\r\nPING\r\n");
    asking.expect("PONG\r\n");
    client.expect("MSG s.a 1 r 1\r\n?\r\n");
    client.send("PUB r 1\r\n!\r\nPUB r 1\r\n!\r\nPING\r\n");
    client.expect("-ERR 'Permissions Violation for Publish to \"r\"'\r\nPONG\r\n");
    asking.expect("MSG r 1 1\r\n!\r\n");

    let mut limited = log_in(&server, &world, &world.user_jwt(&json!({"subs": 1, "payload": 3})));
    limited.send("SUB a 1\r\nSUB b 2\r\nPUB x 3\r\nabc\r\nPING\r\n");
    limited.expect("-ERR 'maximum subscriptions exceeded'\r\nPONG\r\n");
    limited.send("PUB x 4\r\n");
    limited.expect_then_close("-ERR 'Maximum Payload Violation'\r\n");
}

fn accounts_limit_their_users(shards: usize) {
    let world = World::new();
    let claims = json!({
        "limits": limits(&json!({"conn": 1, "subs": 1, "payload": 5, "disallow_bearer": true})),
        "default_permissions": {"pub": {"deny": ["d"]}},
        "mappings": {"m.*": [{"subject": "n.$1"}]},
    });
    let server = world.config(&claims).server().shards(shards).start();
    let jwt = world.user_jwt(&json!({}));
    let mut client = log_in(&server, &world, &jwt);
    client.send("SUB n.* 1\r\nSUB b 2\r\nPUB d 1\r\nx\r\nPUB m.1 1\r\nx\r\nPING\r\n");
    client.expect(
        "-ERR 'maximum subscriptions exceeded'\r\n-ERR 'Permissions Violation for Publish to \"d\"'\r\n\
         MSG n.1 1 1\r\nx\r\nPONG\r\n",
    );
    let mut second = server.connect();
    let options = world.connect(&second, &jwt);
    second.send(format!("CONNECT {options}\r\n"));
    second.expect_then_close("-ERR 'maximum account active connections exceeded'\r\n");
    expect_refused(&server, &world.user_jwt(&json!({"bearer_token": true})), None, "bearer");
    client.send("PUB a 6\r\n");
    client.expect_then_close("-ERR 'Maximum Payload Violation'\r\n");
    // Permissions of its own take the place of the defaults.
    let own = world.user_jwt(&json!({"pub": {"allow": ["d"]}}));
    wait_until("the first client has left", PATIENCE, || {
        let mut client = server.connect();
        let options = world.connect(&client, &own);
        client.send(format!("CONNECT {options}\r\nPUB d 1\r\nx\r\nPING\r\n"));
        client.read_up_to(6) == b"PONG\r\n"
    });
}

fn signing_keys_give_what_their_templates_say(shards: usize) {
    let world = World::new();
    let (plain, scoped) = (KeyPair::new_account(), KeyPair::new_account());
    let template = json!({
        "pub": {"allow": ["p.{{name()}}", "t.{{tag(x)}}", "s.{{subject()}}", "an.{{account-name()}}",
                          "as.{{account-subject()}}", "at.{{account-tag(y)}}", "none.{{tag(z)}}"]},
        "sub": {"allow": ["only.{{tag(z)}}"]},
        "subs": -1, "data": -1, "payload": 7,
    });
    let claims = json!({
        "tags": ["y:yy"],
        "signing_keys": [plain.public_key(),
                         {"kind": "user_scope", "key": scoped.public_key(), "role": "r", "template": template}],
    });
    let server = world.config(&claims).server().shards(shards).monitor().start();
    let account = world.account.public_key();
    let of = |issuer: &KeyPair, claims: Value| user_jwt(issuer, &world.user, &claims);
    log_in(&server, &world, &of(&plain, json!({"issuer_account": account}))).fence();
    let scoped_claims = |more: Value| {
        let mut claims = json!({"type": "user", "issuer_account": account, "tags": ["x:1", "x:2"]});
        claims.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        token(&scoped, &world.user.public_key(), &claims, &json!({"name": "usr"}))
    };
    let mut client = log_in(&server, &world, &scoped_claims(json!({})));
    let user = world.user.public_key();
    let allowed = ["p.usr", "t.1", "t.2", &format!("s.{user}"), "an.acc", &format!("as.{account}"), "at.yy"];
    for subject in allowed {
        client.send(format!("PUB {subject} 1\r\nx\r\n"));
    }
    client.send("PUB t.3 1\r\nx\r\nPUB none.x 1\r\nx\r\nSUB only.x 1\r\nPING\r\n");
    client.expect(
        "-ERR 'Permissions Violation for Publish to \"t.3\"'\r\n\
         -ERR 'Permissions Violation for Publish to \"none.x\"'\r\n\
         -ERR 'Permissions Violation for Subscription to \"only.x\"'\r\nPONG\r\n",
    );
    let shown = &server.get_json(&format!("/connz?auth=1&cid={}", client.cid()))["connections"][0];
    assert_eq!(shown["issuer_key"], json!(scoped.public_key()));
    client.send("PUB t.1 8\r\n");
    client.expect_then_close("-ERR 'Maximum Payload Violation'\r\n");
    for (what, jwt) in [
        ("a signing key without the account", of(&plain, json!({}))),
        ("limits beside a template", of(&scoped, json!({"issuer_account": account}))),
        ("bearer beside a template", scoped_claims(json!({"bearer_token": true}))),
        ("a network beside a template", scoped_claims(json!({"src": ["127.0.0.0/8"]}))),
    ] {
        expect_refused(&server, &jwt, Some(&world.user), what);
    }
    for (what, template) in [
        ("an unknown function", json!({"pub": {"allow": ["x.{{foo()}}"]}})),
        ("a denied subject that cannot be made", json!({"sub": {"deny": ["x.{{tag(z)}}"]}})),
        ("another network in the template", json!({"src": ["10.0.0.0/8"]})),
    ] {
        let key = json!({"kind": "user_scope", "key": scoped.public_key(), "template": template});
        let server = world.config(&json!({"signing_keys": [key]})).server().shards(shards).start();
        expect_refused(&server, &scoped_claims(json!({})), Some(&world.user), what);
    }
}

fn users_go_when_their_time_is_over(shards: usize) {
    let world = World::new();
    let second = KeyPair::new_account();
    let until = now() + 3;
    let text = world.text(
        &[
            (&world.account, world.account(&json!({}))),
            (&second, world.account_of(&second, &json!({}), &json!({"exp": until}))),
        ],
        "",
    );
    let server = Config::new(&text).server().shards(shards).monitor().start();
    let claims = json!({"type": "user", "subs": -1, "data": -1, "payload": -1});
    let jwt = token(&world.account, &world.user.public_key(), &claims, &json!({"exp": until}));
    let mut user = log_in(&server, &world, &jwt);
    // The reference cannot count that far.
    let far = if server.is_leat() { 1_000_000_000_000 } else { now() + 100_000 };
    let later = token(&world.account, &world.user.public_key(), &claims, &json!({"exp": far}));
    let mut stays = log_in(&server, &world, &later);
    let mut of_account = log_in_as(&server, &second, &world.user, &json!({}));
    user.fence();
    of_account.fence();
    user.expect_then_close("-ERR 'User Authentication Expired'\r\n");
    of_account.expect_then_close("-ERR 'Account Authentication Expired'\r\n");
    assert!(now() >= until);
    stays.expect_nothing();
    expect_refused(&server, &user_jwt(&second, &world.user, &json!({})), Some(&world.user), "expired account");
    let closed = server.get_json("/connz?state=closed");
    let reasons: Vec<_> =
        closed["connections"].as_array().expect("a list").iter().filter_map(|conn| conn["reason"].as_str()).collect();
    assert_eq!(reasons.iter().filter(|reason| **reason == "Authentication Expired").count(), 2, "{reasons:?}");
}

/// Two accounts: the second imports from the first. A user of each.
struct Sharing {
    server: Server,
    exporter: Client,
    importer: Client,
}

impl Sharing {
    fn new(shards: usize, world: &World, second: &KeyPair, exporter: &Value, imports: &Value) -> Self {
        let importer = world.account_of(second, &json!({"imports": imports}), &json!({}));
        let text = world.text(&[(&world.account, world.account(exporter)), (second, importer)], "");
        let server = Config::new(&text).server().shards(shards).start();
        let exporter = log_in(&server, world, &world.user_jwt(&json!({})));
        let importer = log_in_as(&server, second, &KeyPair::new_user(), &json!({}));
        Self { server, exporter, importer }
    }

    /// What a subscriber to everything in the importing account gets of these subjects.
    fn crossing(mut self, subjects: &[&str]) -> Vec<String> {
        assert!(self.server.shards() > 0);
        self.importer.subscribe(">", "1");
        for subject in subjects {
            self.exporter.publish(subject, "x");
        }
        self.exporter.fence();
        self.importer.messages_to_fence().into_iter().map(|message| message.subject).collect()
    }
}

fn accounts_share_with_each_other(shards: usize) {
    let (world, second) = (World::new(), KeyPair::new_account());
    let (first, own) = (world.account.public_key(), second.public_key());
    let stream = |more: Value| {
        let mut import = json!({"name": "i", "subject": "ev.>", "account": first, "type": "stream"});
        import.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        import
    };
    let open = json!({"exports": [{"name": "e", "subject": "ev.>", "type": "stream"}]});
    let by_position =
        json!({"exports": [{"name": "e", "subject": "ev.*.>", "type": "stream", "account_token_position": 2}]});
    let mine = format!("ev.{own}.x");
    for (exporter, import, expected) in [
        (&open, stream(json!({})), vec!["ev.x", &mine]),
        (&open, stream(json!({"to": "pre"})), vec!["pre.ev.x", &format!("pre.{mine}")]),
        (&open, stream(json!({"subject": "ev.*", "local_subject": "loc.$1"})), vec!["loc.x"]),
        (&open, stream(json!({"subject": "ev.x"})), vec!["ev.x"]),
        (&open, stream(json!({"subject": ">"})), vec![]),
        (&open, stream(json!({"account": own})), vec![]),
        (&open, stream(json!({"account": KeyPair::new_account().public_key()})), vec![]),
        (&by_position, stream(json!({"subject": format!("ev.{own}.>")})), vec![&*mine]),
        (&by_position, stream(json!({"subject": format!("ev.{first}.>")})), vec![]),
        (&by_position, stream(json!({"subject": "ev.*.>"})), vec![]),
    ] {
        let got = Sharing::new(shards, &world, &second, exporter, &json!([import])).crossing(&["ev.x", &mine]);
        assert_eq!(got, expected, "{import}");
    }
    let service = json!({"exports": [{"name": "e", "subject": "svc.*", "type": "service"}]});
    for (import, subject) in [
        (json!({"subject": "svc.*"}), "svc.1"),
        (json!({"subject": "svc.*", "local_subject": "l.$1"}), "l.1"),
        (json!({"subject": "l.*", "to": "svc.*"}), "l.1"),
    ] {
        let mut import = import;
        (import["name"], import["account"], import["type"]) = (json!("i"), json!(first), json!("service"));
        let mut sharing = Sharing::new(shards, &world, &second, &service, &json!([import]));
        sharing.exporter.subscribe("svc.1", "1");
        sharing.importer.send(format!("SUB r 2\r\nPUB {subject} r 1\r\n?\r\n"));
        let request = sharing.exporter.next_msg();
        sharing.exporter.publish(&request.reply.expect("a place for the answer"), "!");
        assert_eq!(sharing.importer.next_msg().text(), "!", "{import}");
    }
}

fn activations_open_what_is_private(shards: usize) {
    let (world, second) = (World::new(), KeyPair::new_account());
    let signer = KeyPair::new_account();
    let first = world.account.public_key();
    let private = json!({
        "exports": [{"name": "e", "subject": "ev.>", "type": "stream", "token_req": true}],
        "signing_keys": [signer.public_key()],
    });
    let import = |activation: Option<String>| {
        let mut import = json!({"name": "i", "subject": "ev.>", "account": first, "type": "stream"});
        if let Some(activation) = activation {
            import["token"] = json!(activation);
        }
        json!([import])
    };
    let activation = |issuer: &KeyPair, more: Value, standard: Value| {
        let mut claims = json!({"type": "activation", "subject": "ev.>", "kind": "stream"});
        claims.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        Some(token(issuer, &second.public_key(), &claims, &standard))
    };
    let by_signer = json!({"issuer_account": first});
    for (what, activation, opens) in [
        ("none", None, false),
        ("of the account", activation(&world.account, json!({}), json!({})), true),
        ("of a signing key", activation(&signer, by_signer.clone(), json!({})), true),
        ("of an unknown key", activation(&KeyPair::new_account(), by_signer, json!({})), false),
        ("expired", activation(&world.account, json!({}), json!({"exp": now() - 5})), false),
    ] {
        let got = Sharing::new(shards, &world, &second, &private, &import(activation)).crossing(&["ev.x"]);
        assert_eq!(got.len(), usize::from(opens), "{what}: {got:?}");
    }
    // What is about something else spoils the account.
    let other = KeyPair::new_account();
    for (what, token) in [
        ("no token", Some("x".to_owned())),
        ("of another account", activation(&other, json!({}), json!({}))),
        ("for another account", {
            let claims = json!({"type": "activation", "subject": "ev.>", "kind": "stream"});
            Some(token(&world.account, &other.public_key(), &claims, &json!({})))
        }),
        ("of another kind", activation(&world.account, json!({"kind": "service"}), json!({}))),
        ("of a narrower subject", activation(&world.account, json!({"subject": "ev.x"}), json!({}))),
    ] {
        let importer = world.account_of(&second, &json!({"imports": import(token)}), &json!({}));
        let text = world.text(&[(&world.account, world.account(&private)), (&second, importer)], "");
        let server = Config::new(&text).server().shards(shards).start();
        expect_refused(&server, &user_jwt(&second, &world.user, &json!({})), Some(&world.user), what);
        log_in(&server, &world, &world.user_jwt(&json!({}))).fence();
    }
}

/// An activation that expires takes the import with it, and one that was taken back lets nobody import.
#[test]
fn activations_end() {
    if skip_on_peer("activations_end: it looks at an import when somebody subscribes only") {
        return;
    }
    let (world, second) = (World::new(), KeyPair::new_account());
    let until = now() + 2;
    let claims = json!({"type": "activation", "subject": "ev.>", "kind": "stream"});
    let activation = token(&world.account, &second.public_key(), &claims, &json!({"exp": until}));
    let import =
        json!([{"subject": "ev.>", "account": world.account.public_key(), "type": "stream", "token": activation}]);
    let export = json!({"subject": "ev.>", "type": "stream", "token_req": true});
    let mut sharing = Sharing::new(1, &world, &second, &json!({"exports": [export]}), &import);
    sharing.importer.subscribe(">", "1");
    wait_until("the import ends", PATIENCE, || {
        sharing.exporter.publish("ev.x", "x");
        sharing.exporter.fence();
        let has_ended = sharing.importer.messages_to_fence().is_empty();
        assert!(!has_ended || now() >= until, "it ends too early");
        has_ended
    });
    let revoked = json!({
        "subject": "ev.>", "type": "stream", "token_req": true, "revocations": {second.public_key(): now() + 10},
    });
    let activation = token(&world.account, &second.public_key(), &claims, &json!({}));
    let import =
        json!([{"subject": "ev.>", "account": world.account.public_key(), "type": "stream", "token": activation}]);
    let sharing = Sharing::new(1, &world, &second, &json!({"exports": [revoked]}), &import);
    assert_eq!(sharing.crossing(&["ev.x"]), Vec::<String>::new());
}

fn a_reload_brings_other_claims(shards: usize) {
    let world = World::new();
    let (second, other_user) = (KeyPair::new_account(), KeyPair::new_user());
    let second_jwt = world.account_of(&second, &json!({}), &json!({}));
    let text =
        |claims: &Value| world.text(&[(&world.account, world.account(claims)), (&second, second_jwt.clone())], "");
    let first = text(&json!({}));
    let jwt = world.user_jwt(&json!({}));
    let soon = now() + 100;
    let revoked_user = json!({"revocations": {world.user.public_key(): soon}});
    let revoked_all = json!({"revocations": {"*": soon}});
    let early = json!({"revocations": {world.user.public_key(): now() - 100}});
    let (gone, denied) = ("-ERR 'User Authentication Revoked'\r\n", "-ERR 'Authorization Violation'\r\n");
    for (what, claims, of_user, of_other) in [
        ("the same", Some(json!({})), None, None),
        ("revoked", Some(revoked_user), Some(gone), None),
        ("all revoked", Some(revoked_all), Some(gone), Some(gone)),
        ("older revoked", Some(early), None, None),
        ("removed", None, Some(denied), Some(denied)),
    ] {
        let config = Config::new(&first);
        let server = config.server().shards(shards).monitor().start();
        let mut user = log_in(&server, &world, &jwt);
        let mut other = log_in_as(&server, &world.account, &other_user, &json!({}));
        let mut bystander = log_in_as(&server, &second, &other_user, &json!({}));
        let new = match &claims {
            Some(claims) => text(claims),
            None => world.text(&[(&second, second_jwt.clone())], ""),
        };
        let said = config.reload(&server, &new);
        assert!(said.contains("Reloaded server configuration"), "{said}");
        for (client, expected) in [(&mut user, of_user), (&mut other, of_other), (&mut bystander, None)] {
            match expected {
                Some(text) => client.expect_then_close(text),
                None => client.expect_nothing(),
            }
        }
        if of_user.is_some() {
            expect_refused(&server, &jwt, Some(&world.user), what);
        } else {
            log_in(&server, &world, &jwt).fence();
        }
        // What was taken back can be given again.
        config.reload(&server, &first);
        log_in(&server, &world, &jwt).fence();
    }

    let config = Config::new(&first);
    let server = config.server().shards(shards).start();
    let mut user = log_in(&server, &world, &jwt);
    let expired = world.account_of(&world.account, &json!({}), &json!({"exp": now() - 5}));
    config.reload(&server, &world.text(&[(&world.account, expired)], ""));
    user.expect_then_close(denied);
    expect_refused(&server, &jwt, Some(&world.user), "its account has expired");

    let config = Config::new(&first);
    let server = config.server().shards(shards).start();
    let mut user = log_in(&server, &world, &jwt);
    user.send("SUB a 1\r\nSUB b 2\r\nPING\r\n");
    user.expect("PONG\r\n");
    config.reload(&server, &text(&json!({"default_permissions": {"sub": {"deny": ["a"]}}})));
    user.expect("-ERR 'Permissions Violation for Subscription to \"a\" (sid \"1\")'\r\n");
    user.send("PUB a 1\r\na\r\nPUB b 1\r\nb\r\nPING\r\n");
    user.expect("MSG b 2 1\r\nb\r\nPONG\r\n");
    // One has to go where two are too many.
    let mut second_user = log_in(&server, &world, &jwt);
    config.reload(&server, &text(&json!({"limits": limits(&json!({"conn": 1}))})));
    wait_until("one of the clients is closed", PATIENCE, || {
        let is_gone = |client: &mut Client| !client.send_if_open(b"PING\r\n") || client.read_up_to(6) != b"PONG\r\n";
        is_gone(&mut user) || is_gone(&mut second_user)
    });
    config.reload(&server, &first);
    let mut user = log_in(&server, &world, &jwt);
    let said = config.reload(&server, &first.replace("operator: \"ey", "operator: \"x"));
    assert!(said.contains("Failed to reload server configuration"), "{said}");
    let other_world = World::new();
    let said = config.reload(&server, &other_world.text(&[], ""));
    assert!(said.contains("config reload not supported for TrustedOperators"), "{said}");
    user.expect_nothing();
}

fn signers_of_users_can_change(shards: usize) {
    let world = World::new();
    let scoped = KeyPair::new_account();
    let text = |claims: &Value| world.text(&[(&world.account, world.account(claims))], "");
    let with = |template: Value| json!({"signing_keys": [{"kind": "user_scope", "key": scoped.public_key(), "template": template}]});
    let claims = json!({"type": "user", "issuer_account": world.account.public_key()});
    let scoped_jwt = token(&scoped, &world.user.public_key(), &claims, &json!({}));
    let template = json!({"subs": -1, "data": -1, "payload": -1});
    let other = json!({"subs": -1, "data": -1, "payload": -1, "pub": {"deny": ["x"]}});
    for (new, may_return) in [(with(other), true), (json!({}), false)] {
        let config = Config::new(&text(&with(template.clone())));
        let server = config.server().shards(shards).monitor().start();
        let mut user = log_in(&server, &world, &scoped_jwt);
        config.reload(&server, &text(&with(template.clone())));
        user.expect_nothing();
        config.reload(&server, &text(&new));
        user.expect_close();
        wait_until("the reason is known", PATIENCE, || {
            let closed = server.get_json("/connz?state=closed");
            closed["connections"][0]["reason"] == "Authentication Failure"
        });
        if may_return {
            log_in(&server, &world, &scoped_jwt).fence();
        } else {
            expect_refused(&server, &scoped_jwt, Some(&world.user), "the key is not known any more");
        }
    }
    // Users that need not sign go when the account does not want them any more.
    let config = Config::new(&text(&json!({})));
    let server = config.server().shards(shards).start();
    let client = server.connect();
    let options = connect(&client, &world.user_jwt(&json!({"bearer_token": true})), None);
    let mut bearer = client.login(&options);
    config.reload(&server, &text(&json!({"limits": limits(&json!({"disallow_bearer": true}))})));
    bearer.expect_then_close("-ERR 'Authorization Violation'\r\n");
}

fn a_sentinel_lets_in_who_has_no_token(shards: usize) {
    let world = World::new();
    let second = KeyPair::new_account();
    let accounts =
        [(&world.account, world.account(&json!({}))), (&second, world.account_of(&second, &json!({}), &json!({})))];
    let sentinel = world.user_jwt(&json!({"bearer_token": true, "pub": {"allow": ["a"]}}));
    let server = Config::new(&world.text(&accounts, &format!("default_sentinel: \"{sentinel}\"\n")));
    let server = server.server().shards(shards).monitor().start();
    assert_eq!(server.connect().info()["auth_required"], true);
    let mut client = server.client();
    client.send("PUB a 1\r\nx\r\nPUB b 1\r\nx\r\nPING\r\n");
    client.expect("-ERR 'Permissions Violation for Publish to \"b\"'\r\nPONG\r\n");
    let shown = &server.get_json(&format!("/connz?auth=1&cid={}", client.cid()))["connections"][0];
    assert_eq!((&shown["authorized_user"], shown.get("jwt")), (&json!(world.user.public_key()), None));
    let mut silent = server.connect();
    silent.send("PING\r\n");
    silent.expect_then_close("-ERR 'Authorization Violation'\r\n");
    log_in_as(&server, &second, &world.user, &json!({})).fence();

    let pinned = format!("resolver_pinned_accounts: [{}]\n", world.account.public_key());
    let server = Config::new(&world.text(&accounts, &pinned)).server().shards(shards).start();
    log_in(&server, &world, &world.user_jwt(&json!({}))).fence();
    expect_refused(&server, &user_jwt(&second, &world.user, &json!({})), Some(&world.user), "not pinned");
    // The system account always is.
    let system = format!("{pinned}system_account: {}\n", second.public_key());
    let server = Config::new(&world.text(&accounts, &system)).server().shards(shards).start();
    log_in_as(&server, &second, &world.user, &json!({})).fence();
}

/// An operator may sign with other keys than its own, and with those only; accounts may then sign as they do.
#[test]
fn operators_have_signing_keys() {
    let world = World::new();
    let (key, account) = (KeyPair::new_operator(), KeyPair::new_account());
    for (strict, own_counts) in [(false, true), (true, false)] {
        let claims =
            json!({"type": "operator", "signing_keys": [key.public_key()], "strict_signing_key_usage": strict});
        let operator = token(&world.operator, &world.operator.public_key(), &claims, &json!({}));
        let by_key = token(&key, &account.public_key(), &support::jwt::account_claims(), &json!({}));
        let text = format!(
            "operator: \"{operator}\"\nresolver: MEMORY\nresolver_preload {{ {}: \"{by_key}\", {}: \"{}\" }}\n",
            account.public_key(),
            world.account.public_key(),
            world.account(&json!({})),
        );
        let server = Config::new(&text).server().start();
        let jwt = world.user_jwt(&json!({}));
        if own_counts {
            log_in(&server, &world, &jwt).fence();
            log_in_as(&server, &account, &world.user, &json!({})).fence();
        } else {
            expect_refused(&server, &jwt, Some(&world.user), "signed with the operator's own key");
        }
    }
    let text = format!(
        "trusted_keys: {}\nresolver: MEMORY\nresolver_preload {{ {}: \"{}\" }}\n",
        world.operator.public_key(),
        world.account.public_key(),
        world.account(&json!({}))
    );
    log_in(&Config::new(&text).server().start(), &world, &world.user_jwt(&json!({}))).fence();
}

/// Claims that contradict themselves or what the operator allows make an account useless, and no other one.
#[test]
fn accounts_that_contradict_themselves() {
    let world = World::new();
    let second = KeyPair::new_account();
    let export = |subject: &str| json!({"name": subject, "subject": subject, "type": "stream"});
    let import = json!({"name": "i", "subject": "a", "account": second.public_key(), "type": "stream"});
    for claims in [
        json!({"limits": limits(&json!({"imports": 0})), "imports": [import]}),
        json!({"limits": limits(&json!({"exports": 1})), "exports": [export("a"), export("b")]}),
        json!({"limits": limits(&json!({"exports": 1, "wildcards": false})), "exports": [export("a.>")]}),
        json!({"exports": [export("a"), export("a")]}),
        json!({"exports": [export("a..")]}),
        json!({"mappings": {"w": [{"subject": "a", "weight": 90}, {"subject": "b", "weight": 50}]}}),
        json!({"signing_keys": ["x"]}),
        json!({"default_permissions": {"pub": {"allow": ["a..b"]}}}),
    ] {
        let accounts =
            [(&world.account, world.account(&claims)), (&second, world.account_of(&second, &json!({}), &json!({})))];
        let server = Config::new(&world.text(&accounts, "")).server().start();
        expect_refused(&server, &world.user_jwt(&json!({})), Some(&world.user), &claims.to_string());
        log_in_as(&server, &second, &world.user, &json!({})).fence();
    }
}

#[test]
fn the_system_account_is_one_of_the_operators() {
    let world = World::new();
    let account = world.account.public_key();
    let text = world.text(&[(&world.account, world.account(&json!({})))], &format!("system_account: {account}\n"));
    let server = Config::new(&text).server().start();
    let client = server.connect();
    let mut options = world.connect(&client, &world.user_jwt(&json!({})));
    options["protocol"] = json!(1);
    assert_eq!(client.login(&options).next_info()["acc_is_sys"], true);
}

/// What a server does not start with.
#[test]
fn starts_are_refused() {
    let world = World::new();
    let second = KeyPair::new_account();
    let good = [(&world.account, world.account(&json!({})))];
    let operator = |claims: Value| {
        let mut all = json!({"type": "operator"});
        all.as_object_mut().expect("an object").extend(claims.as_object().expect("an object").clone());
        token(&world.operator, &world.operator.public_key(), &all, &json!({}))
    };
    let with = |claims: Value| world.text(&good, "").replace(&world.operator_jwt, &operator(claims));
    let more = |text: &str| world.text(&good, text);
    let no_bearer = world.user_jwt(&json!({}));
    let (subject, stranger) = (world.operator.public_key(), KeyPair::new_operator());
    for (text, expected) in [
        (more("accounts { X {} }\n"), "operators do not allow Accounts to be configured directly"),
        (
            more("authorization { users: [ {user: a, password: b} ] }\n"),
            "operators do not allow users to be configured directly",
        ),
        (more("no_auth_user: x\n"), "no_auth_user not compatible with Trusted Operator"),
        (more(&format!("trusted_keys: {subject}\n")), "conflicting options for 'TrustedKeys' and 'TrustedOperators'"),
        (
            more(&format!("system_account: {}\n", second.public_key())),
            "error resolving system account: account missing",
        ),
        (with(json!({"system_account": second.public_key()})), "error resolving system account: account missing"),
        (
            with(json!({"system_account": second.public_key()}))
                + &format!("system_account: {}\n", world.account.public_key()),
            "system_account in config and operator JWT must be identical",
        ),
        (
            world.text(
                &[(&second, token(&stranger, &second.public_key(), &support::jwt::account_claims(), &json!({})))],
                &format!("system_account: {}\n", second.public_key()),
            ),
            "error resolving system account: account validation failed",
        ),
        (with(json!({"assert_server_version": "3.0.0"})), "expected major version 3 > server major version 2"),
        (with(json!({"assert_server_version": "2.99.0"})), "expected minor version 99 > server minor version 15"),
        (
            with(json!({"assert_server_version": "x"})),
            "asserted server version must be of the form <major>.<minor>.<update>",
        ),
        (with(json!({"signing_keys": [second.public_key()]})), "are required to be a valid public operator nkey"),
        ("default_sentinel: \"x\"\n".to_owned(), "default sentinel requires operators and accounts"),
        (more("default_sentinel: \"x\"\n"), "default sentinel JWT not valid"),
        (more(&format!("default_sentinel: \"{no_bearer}\"\n")), "default sentinel must be a bearer token"),
        (more("resolver_pinned_accounts: [X]\n"), "pinned account key \"X\" is not a valid public account nkey"),
    ] {
        let finished = Config::new(&text).server().start_in_vain();
        assert!(finished.stderr.contains(expected), "{expected}:\n{}\n{text}", finished.stderr);
        assert_eq!(finished.code, Some(1), "{expected}");
    }
    for text in [with(json!({"assert_server_version": "2.2.0"})), more("authorization { user: a, password: b }\n")] {
        log_in(&Config::new(&text).server().start(), &world, &world.user_jwt(&json!({}))).fence();
    }
}

/// What this version cannot do is said at the start, lest a server is open or closed in another way than it looks.
#[test]
fn what_is_missing_is_not_passed_over() {
    if skip_on_peer("what_is_missing_is_not_passed_over: nothing of it is missing there") {
        return;
    }
    let world = World::new();
    let operator = format!("operator: \"{}\"\n", world.operator_jwt);
    let callout = world.account(&json!({"authorization": {"auth_users": [world.user.public_key()]}}));
    for (text, expected) in [
        (operator.clone(), "operators require an account resolver to be configured"),
        (operator.clone() + "resolver: URL(\"http://127.0.0.1:1/\")\n", "the resolver must be MEMORY"),
        (operator.clone() + "resolver { type: full, dir: \"./jwt\" }\n", "the resolver must be MEMORY"),
        (operator + "resolver { type: cache, dir: \"./jwt\" }\n", "the resolver must be MEMORY"),
        (world.text(&[(&world.account, callout.clone())], ""), "this version cannot enforce auth_callout"),
    ] {
        let config = Config::new(&text);
        let finished = config.server().start_in_vain();
        assert!(finished.stderr.contains(expected), "{expected}:\n{}", finished.stderr);
        let tested = config.test();
        assert_eq!(tested.code, Some(0));
        assert!(tested.stderr.contains("a start would be refused") && tested.stderr.contains(expected));
    }
    let config = world.config(&json!({}));
    let server = config.server().start();
    let said = config.reload(&server, &world.text(&[(&world.account, callout)], ""));
    assert!(said.contains("this version cannot enforce auth_callout"), "{said}");
    log_in(&server, &world, &world.user_jwt(&json!({}))).fence();
}
