//! What leaves an account: its mappings, the streams that others import from it, the services that it imports.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::time::Duration;

use super::mapping::{Mappings, Transform};
use crate::config::accounts::Account;
use crate::config::exports::{ExportKind, Import, ImportKind, ResponseType, Service};
use crate::subject::{PatternMap, is_subset};

/// How long answers of an imported service are waited for, unless the export says otherwise.
const RESPONSE_TIME: Duration = Duration::from_secs(120);

/// Where messages that clients of one account publish go beside the account itself.
#[derive(Debug, Default)]
pub struct Crossings {
    /// Applied first.
    pub mappings: Mappings,
    /// Streams that other accounts import, by subject.
    pub streams: PatternMap<StreamCrossing>,
    /// Services that this account imports, by the subject here.
    pub services: PatternMap<ServiceCrossing>,
}

/// Messages that another account gets.
#[derive(Debug)]
pub struct StreamCrossing {
    /// Number of the other account.
    pub to: u32,
    local: Option<Transform>,
}

/// Requests that another account answers.
#[derive(Debug)]
pub struct ServiceCrossing {
    /// Number of the answering account.
    pub to: u32,
    /// From the subject there to the one here.
    local: Option<Transform>,
    /// How many answers there are.
    pub response: ResponseType,
    /// How long they are waited for.
    pub response_time: Duration,
    /// The service may see who asks.
    pub share: bool,
}

impl Crossings {
    /// Of all accounts, by number. `numbers` has the numbers by name; `cluster` is the one that the server is in.
    #[must_use]
    pub fn of_all(accounts: &[&Account], numbers: &HashMap<&str, u32>, cluster: Option<&str>) -> HashMap<u32, Self> {
        let by_name: HashMap<&str, &Account> = accounts.iter().map(|account| (&*account.name, *account)).collect();
        let mut all: HashMap<u32, Self> = HashMap::new();
        for account in accounts {
            let here = numbers[&*account.name];
            if !account.mappings.is_empty() {
                all.entry(here).or_default().mappings = Mappings::new(&account.mappings, cluster);
            }
            for import in &account.imports {
                // The configuration names only accounts that there are, and exports that fit.
                let (Some(from), Some(exporter)) = (numbers.get(&*import.account), by_name.get(&*import.account))
                else {
                    continue;
                };
                let local = import.local.as_ref().map(|local| Transform::new(&import.subject, local));
                match import.kind {
                    ImportKind::Stream { .. } => {
                        let stream = StreamCrossing { to: here, local };
                        all.entry(*from).or_default().streams.push(import.subject.as_bytes(), stream);
                    }
                    ImportKind::Service { share } => {
                        let service = service(exporter, import);
                        let service = ServiceCrossing {
                            to: *from,
                            local,
                            response: service.response,
                            response_time: service.threshold.unwrap_or(RESPONSE_TIME),
                            share,
                        };
                        all.entry(here).or_default().services.push(import.local_pattern().as_bytes(), service);
                    }
                }
            }
        }
        all
    }
}

/// The service that is imported.
fn service(exporter: &Account, import: &Import) -> Service {
    let covers = |subject: &str| is_subset(import.subject.as_bytes(), subject.as_bytes());
    let mut services = exporter.exports.iter().filter_map(|export| match &export.kind {
        ExportKind::Service(service) if covers(&export.subject) => Some(service.clone()),
        _ => None,
    });
    services.next_back().unwrap_or_default()
}

impl StreamCrossing {
    /// The subject in the other account of a message that crosses.
    #[must_use]
    pub fn carry(&self, subject: &[u8]) -> Vec<u8> {
        match &self.local {
            Some(local) => local.apply(subject, &mut |_| 0),
            None => subject.to_vec(),
        }
    }
}

impl ServiceCrossing {
    /// The subject in the other account of a request that crosses.
    #[must_use]
    pub fn carry(&self, subject: &[u8]) -> Vec<u8> {
        match &self.local {
            Some(local) => local.invert(subject),
            None => subject.to_vec(),
        }
    }
}
