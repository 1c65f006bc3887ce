//! Users, accounts and listeners, as CONNECT and reloads meet them.

use std::net::IpAddr;

use super::*;
use crate::auth::{Answer, Client, Review};
use crate::tls::{PeerNames, Subject};
use crate::wire::connect::Connect;

const CLIENT: Client<'static> = Client {
    kind: ConnectionType::Standard,
    nonce: "",
    certificate: None,
    ip: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
};

fn connect(user: Option<&str>, pass: Option<&str>, token: Option<&str>) -> Connect {
    let text = |value: Option<&str>| value.map(Into::into);
    Connect { user: text(user), pass: text(pass), auth_token: text(token), ..Connect::default() }
}

/// What a directory says of a CONNECT, in short.
fn verdict(directory: &Directory, connect: &Connect) -> String {
    match directory.check(connect, &CLIENT) {
        Answer::Granted(grant) => directory.accounts()[grant.account as usize].name.to_string(),
        Answer::Denied => "denied".into(),
        Answer::Undecided(_) => "undecided".into(),
    }
}

#[test]
fn shared_credentials_are_compared_whole() {
    let user = Directory::new(&Options {
        user: Some("derek".into()),
        pass: Some(Secret::new("s3cr3t")),
        ..Options::default()
    });
    let token = Directory::new(&Options { auth_token: Some(Secret::new("T0pS3cr3t")), ..Options::default() });
    assert_eq!(verdict(&user, &connect(Some("derek"), Some("s3cr3t"), None)), "$G");
    for (name, pass) in
        [(None, None), (Some("derek"), None), (Some("derek"), Some("s3cr3")), (Some("dere"), Some("s3cr3t"))]
    {
        assert_eq!(verdict(&user, &connect(name, pass, None)), "denied");
    }
    assert_eq!(verdict(&token, &connect(None, None, Some("T0pS3cr3t"))), "$G");
    assert_eq!(verdict(&token, &connect(None, None, Some("T0pS3cr3t\0"))), "denied");
    assert_eq!(verdict(&token, &connect(Some("T0pS3cr3t"), None, None)), "denied");
    let open = Directory::new(&Options::default());
    assert_eq!(verdict(&open, &connect(Some("x"), Some("y"), None)), "$G");
    let kind = CLIENT.kind;
    assert!(!open.is_required(kind) && open.without_connect(kind).is_some() && token.without_connect(kind).is_none());
}

fn user(name: &str, password: &str) -> ConfiguredUser {
    ConfiguredUser {
        identity: Identity::Password { user: name.into(), password: Some(Secret::new(password)) },
        permissions: None,
        connection_types: Vec::new(),
        proxy_required: false,
    }
}

#[test]
fn users_belong_to_accounts() {
    let mut options = Options::default();
    let mut browser = user("browser", "b");
    browser.connection_types = vec![ConnectionType::Websocket];
    options.access.users = vec![user("global", "g")];
    options.access.accounts = vec![
        Account { name: "A".into(), users: vec![user("a", "1"), browser], ..Account::default() },
        Account {
            name: "B".into(),
            users: vec![user("b", "$2a$04$abcdefghijklmnopqrstuv")],
            limits: AccountLimits { max_connections: Some(2), ..AccountLimits::default() },
            ..Account::default()
        },
    ];
    options.access.no_auth_user = Some("a".into());
    options.access.system_account = Some("B".into());
    let directory = Directory::new(&options);
    let names: Vec<_> = directory.accounts().iter().map(|account| (&*account.name, account.is_system)).collect();
    assert_eq!(names, [("$G", false), ("A", false), ("B", true)]);
    for (name, pass, expected) in [
        (Some("global"), Some("g"), "$G"),
        (Some("a"), Some("1"), "A"),
        (Some("a"), Some("2"), "denied"),
        (Some("b"), Some("x"), "undecided"),
        (Some("browser"), Some("b"), "denied"),
        (Some("nobody"), None, "denied"),
        (None, Some("1"), "denied"),
        (None, None, "A"),
    ] {
        assert_eq!(verdict(&directory, &connect(name, pass, None)), expected, "{name:?} {pass:?}");
    }
    let full = &directory.accounts()[2];
    assert!(full.enter() && full.enter() && !full.enter());
    full.leave();
    assert!(full.enter());
}

#[test]
fn certificates_name_users() {
    let mut options = Options::default();
    options.access.users = ["al@example.com", "host.example.com", "CN=al,O=Example"].map(|name| user(name, "x")).into();
    options.tls = Some(TlsOptions { verify_and_map: true, ..TlsOptions::default() });
    let directory = Directory::new(&options);
    let names = |emails: &[&str], dns: &[&str], subject: &[(&str, &str)]| PeerNames {
        emails: emails.iter().map(ToString::to_string).collect(),
        dns: dns.iter().map(ToString::to_string).collect(),
        uris: Vec::new(),
        subject: Subject(subject.iter().map(|(kind, value)| vec![(kind.to_string(), value.to_string())]).collect()),
    };
    for (names, expected) in [
        (names(&["x@example.com", "al@example.com"], &["host.example.com"], &[]), Some("al@example.com")),
        (names(&["x@example.com"], &["host.example.com"], &[]), Some("host.example.com")),
        (names(&[], &[], &[("CN", "al"), ("O", "Example")]), Some("CN=al,O=Example")),
        (names(&[], &[], &[("O", "Example"), ("CN", "al")]), Some("CN=al,O=Example")),
        (names(&[], &[], &[("CN", "al")]), None),
    ] {
        let client = Client { certificate: Some(&names), ..CLIENT };
        let user = match directory.check(&connect(Some("other"), Some("x"), None), &client) {
            Answer::Granted(grant) => grant.user,
            _ => None,
        };
        assert_eq!(user.as_deref(), expected);
    }
}
/// What `new` makes of somebody who has logged in at `old`.
fn review(old: &Options, new: &Options, connect: &Connect) -> String {
    let old = Directory::new(old);
    let Answer::Granted(grant) = old.check(connect, &CLIENT) else { panic!("the login is good") };
    let new = old.successor(new);
    match new.review(&grant.basis, grant.account, CLIENT.kind) {
        Review::Stays(grant) => format!("{:?}", new.accounts()[grant.account as usize].name),
        other => format!("{other:?}"),
    }
}

#[test]
fn another_directory_takes_over() {
    let open = Options::default();
    let with = |user: Option<&str>, pass: Option<&str>, token: Option<&str>| Options {
        user: user.map(Into::into),
        pass: pass.map(Secret::new),
        auth_token: token.map(Secret::new),
        ..Options::default()
    };
    let (single, single2) = (with(Some("u"), Some("1"), None), with(Some("u"), Some("2"), None));
    let (token, token2) = (with(None, None, Some("t")), with(None, None, Some("t2")));
    let in_account = |name: &str, users: &[ConfiguredUser]| {
        let mut options = Options::default();
        options.access.accounts = vec![
            Account { name: "other".into(), users: vec![user("o", "o")], ..Account::default() },
            Account { name: name.into(), users: users.to_vec(), ..Account::default() },
        ];
        options
    };
    /// A hash is no password.
    const HASH: &str = "$2a$04$abcdefghijklmnopqrstuv";
    let list = |password: &str| {
        let mut options = Options::default();
        options.access.users = vec![user("u", password)];
        options
    };
    let hashed_token = with(None, None, Some(HASH));
    let mut web = user("u", "1");
    web.connection_types = vec![ConnectionType::Websocket];
    let a = in_account("A", &[user("u", "1")]);
    let (by_name, by_token, as_nobody) =
        (connect(Some("u"), Some("1"), None), connect(None, None, Some("t")), connect(None, None, None));
    for (old, new, connect, expected) in [
        (&open, &open, &as_nobody, "\"$G\""),
        (&open, &token, &as_nobody, "Denied"),
        (&token, &token, &by_token, "\"$G\""),
        (&token, &token2, &by_token, "Denied"),
        (&token, &single, &by_token, "Denied"),
        (&token, &open, &by_token, "\"$G\""),
        (&open, &single, &by_name, "Gone"),
        (&open, &token, &by_token, "\"$G\""),
        (&open, &token2, &by_token, "Denied"),
        (&open, &a, &by_name, "Gone"),
        (&open, &list("1"), &by_name, "\"$G\""),
        (&open, &list("2"), &by_name, "Denied"),
        (&open, &list(HASH), &connect(Some("u"), Some(HASH), None), "Denied"),
        (&open, &hashed_token, &connect(None, None, Some(HASH)), "Denied"),
        (&single, &list("1"), &by_name, "\"$G\""),
        (&single, &list("2"), &by_name, "Denied"),
        (&single, &a, &by_name, "Gone"),
        (&single, &single, &by_name, "\"$G\""),
        (&single, &single2, &by_name, "Gone"),
        (&single, &open, &by_name, "Gone"),
        (&a, &a, &by_name, "\"A\""),
        (&a, &in_account("A", &[user("u", "1"), user("v", "1")]), &by_name, "\"A\""),
        (&a, &in_account("A", &[user("u", "2")]), &by_name, "Denied"),
        (&a, &in_account("A", &[web]), &by_name, "Denied"),
        (&a, &in_account("A", &[user("v", "1")]), &by_name, "Gone"),
        (&a, &in_account("B", &[user("u", "1")]), &by_name, "Gone"),
        (&a, &open, &by_name, "Gone"),
    ] {
        assert_eq!(review(old, new, connect), expected, "{old:?} to {new:?}");
    }
}

/// Accounts keep their numbers and their clients, and a number never names another account.
#[test]
fn numbers_of_accounts_last() {
    let of = |names: &[&str]| {
        let mut options = Options::default();
        let account = |name: &&str| Account {
            name: (*name).into(),
            limits: AccountLimits { max_connections: Some(1), ..AccountLimits::default() },
            ..Account::default()
        };
        options.access.accounts = names.iter().map(account).collect();
        options
    };
    let names = |directory: &Directory| -> Vec<String> {
        directory.accounts().iter().map(|account| account.name.to_string()).collect()
    };
    let first = Directory::new(&of(&["A", "B"]));
    assert_eq!(names(&first), ["$G", "A", "B", "$SYS"]);
    assert!(first.accounts()[2].enter());
    let second = first.successor(&of(&["C", "B"]));
    assert_eq!(names(&second), ["$G", "A", "B", "$SYS", "C"]);
    assert!(second.accounts()[3].is_system && !second.accounts()[2].enter());
    assert_eq!(second.accounts()[1].limits, AccountLimits::default());
    second.accounts()[2].leave();
    assert!(first.accounts()[2].enter());
    let third = second.successor(&of(&["D", "A"]));
    assert_eq!(names(&third), ["$G", "A", "B", "$SYS", "C", "D"]);
    assert_eq!(third.version(), 2);
}
