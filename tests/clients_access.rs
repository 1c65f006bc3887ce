//! Users of a configuration file as the official Rust client meets them.

mod support;

use std::sync::mpsc;
use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerError, Subscriber};
use futures_util::StreamExt;
use serde_json::{Value, json};
use support::config::{Config, users};
use support::jwt::{self, Credentials, World};
use support::{PATIENCE, Server, shard_suite};

shard_suite!(one_shard = 1, three_shards = 3 => {
    users_of_a_file_do_what_they_may,
    users_with_credentials_do_what_they_may,
    a_client_lives_through_a_revocation,
    a_client_lives_through_a_change_of_its_password,
});

fn in_runtime(body: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let body = async { tokio::time::timeout(4 * PATIENCE, body).await.expect("the test should end in time") };
    runtime.expect("a runtime can be built").block_on(body);
}

fn by_password(user: &str, password: &str) -> ConnectOptions {
    ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned())
}

/// The texts that a subscription gets up to the one that says `end`.
async fn up_to_end(subscription: &mut Subscriber) -> Vec<String> {
    let mut texts = Vec::new();
    loop {
        let message = tokio::time::timeout(PATIENCE, subscription.next()).await.expect("a message should come");
        let text = String::from_utf8(message.expect("the subscription goes on").payload.to_vec()).expect("text");
        if text == "end" {
            return texts;
        }
        texts.push(text);
    }
}

async fn publish(client: &Client, subject: &str, text: &'static str) {
    client.publish(subject.to_owned(), text.into()).await.expect("a message is published");
}

/// Connects with the options and subscribes to `news.*`, which is in force then.
async fn listening(server: &Server, options: ConnectOptions) -> (Client, Subscriber) {
    let client = options.connect(server.url()).await.expect("the user is let in");
    let subscription = client.subscribe("news.*").await.expect("a subscription is made");
    // The server answers in order: when the client hears itself, it is subscribed.
    let inbox = client.new_inbox();
    let mut own = client.subscribe(inbox.clone()).await.expect("a subscription is made");
    publish(&client, &inbox, "end").await;
    up_to_end(&mut own).await;
    (client, subscription)
}

/// A user that may not do everything is told so; what it may publish to `news.today` is published, and then `end`, for
/// which it has to stay connected.
async fn publish_with_limits(server: &Server, options: ConnectOptions) -> Client {
    let (sender, violations) = mpsc::channel();
    let limited = options.event_callback(move |event| {
        if let Event::ServerError(ServerError::Other(text)) = event {
            let _ = sender.send(text);
        }
        async {}
    });
    let limited = limited.connect(server.url()).await.expect("the user is let in");
    publish(&limited, "news.today", "from limited").await;
    publish(&limited, "secret.news", "not for them").await;
    let _denied = limited.subscribe("secret.>").await.expect("the client does not know yet");
    for expected in [
        "permissions violation for publish to \"secret.news\"",
        "permissions violation for subscription to \"secret.>\"",
    ] {
        let text = tokio::task::block_in_place(|| violations.recv_timeout(PATIENCE)).expect("a violation is told");
        assert_eq!(text.to_lowercase(), expected);
    }
    publish(&limited, "news.today", "goes on").await;
    publish(&limited, "news.today", "end").await;
    limited
}

/// Users with passwords, hashes and nkeys enter, others do not; accounts do not hear each other; and the client tells
/// the program of what it may not do.
fn users_of_a_file_do_what_they_may(shards: usize) {
    let (config, seed) = users();
    let server = config.server().shards(shards).start();
    in_runtime(async move {
        let mut listeners = Vec::new();
        for options in
            [by_password("plain", "secret"), by_password("hashed", "hashed"), ConnectOptions::with_nkey(seed)]
        {
            listeners.push(listening(&server, options).await);
        }
        let (other, mut others) = listening(&server, by_password("other", "x")).await;
        for (user, password) in [("plain", "hashed"), ("hashed", "secret"), ("nobody", "x")] {
            let error = by_password(user, password).connect(server.url()).await.expect_err("wrong credentials");
            assert_eq!(error.kind(), ConnectErrorKind::AuthorizationViolation, "{error}");
        }
        let stranger = ConnectOptions::with_nkey(nkeys::KeyPair::new_user().seed().expect("a seed"));
        let error = stranger.connect(server.url()).await.expect_err("an unknown key");
        assert_eq!(error.kind(), ConnectErrorKind::AuthorizationViolation, "{error}");

        let _limited = publish_with_limits(&server, by_password("limited", "x")).await;
        for (_, subscription) in &mut listeners {
            assert_eq!(up_to_end(subscription).await, ["from limited", "goes on"]);
        }
        publish(&other, "news.today", "end").await;
        assert_eq!(up_to_end(&mut others).await, Vec::<String>::new());
    });
}

/// The same with users that an operator's accounts vouch for.
fn users_with_credentials_do_what_they_may(shards: usize) {
    let credentials = Credentials::new();
    let server = credentials.config.server().shards(shards).start();
    let with = |text: &str| ConnectOptions::with_credentials(text).expect("credentials can be read");
    in_runtime(async move {
        let (_own, mut own) = listening(&server, with(&credentials.own)).await;
        let (other, mut others) = listening(&server, with(&credentials.other)).await;
        let error = with(&credentials.stranger).connect(server.url()).await.expect_err("nobody knows the account");
        assert_eq!(error.kind(), ConnectErrorKind::AuthorizationViolation, "{error}");
        let _limited = publish_with_limits(&server, with(&credentials.limited)).await;
        assert_eq!(up_to_end(&mut own).await, ["from limited", "goes on"]);
        publish(&other, "news.today", "end").await;
        assert_eq!(up_to_end(&mut others).await, Vec::<String>::new());
    });
}

/// A client whose credentials are taken back is told why it has to go; another one of the same account stays.
fn a_client_lives_through_a_revocation(shards: usize) {
    let (world, other) = (World::new(), nkeys::KeyPair::new_user());
    let text = |claims: &Value| world.text(&[(&world.account, world.account(claims))], "");
    let config = Config::new(&text(&json!({})));
    let server = config.server().shards(shards).start();
    let user_creds = jwt::creds(&world.user_jwt(&json!({})), &world.user);
    let other_creds = jwt::creds(&jwt::user_jwt(&world.account, &other, &json!({})), &other);
    let revoked = text(&json!({"revocations": {world.user.public_key(): jwt::now() + 100}}));
    let with = |text: &str| ConnectOptions::with_credentials(text).expect("credentials can be read");
    in_runtime(async move {
        let (sender, events) = mpsc::channel();
        let options = with(&user_creds).event_callback(move |event| {
            let _ = sender.send(event);
            async {}
        });
        let _user = options.connect(server.url()).await.expect("the user is let in");
        let (_other, mut subscription) = listening(&server, with(&other_creds)).await;
        tokio::task::block_in_place(|| config.reload(&server, &revoked));
        tokio::task::block_in_place(|| {
            loop {
                let event = events.recv_timeout(PATIENCE).expect("the client should be told");
                if let Event::ServerError(ServerError::Other(text)) = event {
                    assert_eq!(text.to_lowercase(), "user authentication revoked");
                    break;
                }
            }
        });
        let error = with(&user_creds).connect(server.url()).await.expect_err("the user was revoked");
        assert_eq!(error.kind(), ConnectErrorKind::AuthorizationViolation, "{error}");
        let (again, _) = listening(&server, with(&other_creds)).await;
        publish(&again, "news.today", "end").await;
        assert_eq!(up_to_end(&mut subscription).await, Vec::<String>::new());
    });
}

/// A client whose password changes is sent away, and whoever knows the new one gets in; a client that is not concerned
/// stays connected.
fn a_client_lives_through_a_change_of_its_password(shards: usize) {
    let text = |password: &str| {
        format!("authorization {{ users: [ {{user: stays, password: x}}, {{user: app, password: {password}}} ] }}\n")
    };
    let config = Config::new(&text("old"));
    let server = config.server().shards(shards).start();
    in_runtime(async move {
        let watched = |options: ConnectOptions| {
            let (sender, events) = mpsc::channel();
            let options = options.event_callback(move |event| {
                let _ = sender.send(event);
                async {}
            });
            (options, events)
        };
        let (options, stays_events) = watched(by_password("stays", "x"));
        let (_stays, mut subscription) = listening(&server, options).await;
        let (options, app_events) = watched(by_password("app", "old"));
        let _app = options.connect(server.url()).await.expect("the user is let in");
        tokio::task::block_in_place(|| config.reload(&server, &text("new")));
        let is_cut = |event: &Event| matches!(event, Event::Disconnected);
        tokio::task::block_in_place(|| {
            loop {
                let event = app_events.recv_timeout(PATIENCE).expect("the client should be cut off");
                if is_cut(&event) {
                    break;
                }
            }
        });
        let (again, _) = listening(&server, by_password("app", "new")).await;
        publish(&again, "news.today", "end").await;
        let got = tokio::time::timeout(Duration::from_secs(10), up_to_end(&mut subscription)).await;
        assert_eq!(got, Ok(Vec::new()));
        assert!(!stays_events.try_iter().any(|event| is_cut(&event)));
    });
}
