//! Starts the service: opens its store, and makes an instance for each shard.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::home::{Home, Shared};
use super::places::Places;
use super::service::Streaming;
use super::{Options, StoreType, report};
use crate::io::driver::ServicePlan;
use crate::io::engine::now;
use crate::io::layout::IDENTITY;
use crate::io::log_directory::{LogDirectory, LogReader};
use crate::io::store_directory::{StoreDirectory, Unusable};
use crate::log::recover::Refusal;
use crate::log::{LogId, StoreId, Time};
use crate::shard::service::Service;
use crate::store::{self, Opened, Store};

/// Why the service cannot start.
#[derive(Debug)]
pub enum CannotStart {
    /// The directory of the store.
    Directory(Unusable),
    /// There is a store of the reference; the directory, and what has been found in it.
    Foreign(PathBuf, PathBuf),
    /// One of its logs.
    Log(PathBuf, Refusal),
    /// It belongs to a service of another name: the one that is wanted, and the one in the store.
    OtherCluster(String, String),
    /// Threads, or randomness.
    Io(io::Error),
}

impl fmt::Display for CannotStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(error) => error.fmt(f),
            Self::Foreign(path, found) => write!(
                f,
                "{} holds a store of nats-streaming-server ({}), which cannot be read here; choose an empty directory",
                path.display(),
                found.display()
            ),
            Self::Log(path, error) => write!(f, "{}: {error}", path.display()),
            Self::OtherCluster(wanted, found) => {
                write!(f, "cluster ID {wanted:?} does not match recovered value of {found:?}")
            }
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CannotStart {}

/// An instance for each of `shards` shards.
///
/// # Errors
/// Why not.
pub fn start(options: &Options, of_store: store::Options, shards: u16) -> Result<Vec<ServicePlan>, CannotStart> {
    tracing::info!("STREAM: Starting NATS Streaming [{}]", options.cluster_id);
    tracing::info!("STREAM: Recovering the state...");
    let (stores, directory) = match options.store {
        StoreType::Memory => (in_memory(of_store, shards)?, None),
        StoreType::File => {
            let path = options.directory();
            if let Some(found) = store_of_reference(&path) {
                return Err(CannotStart::Foreign(path, found));
            }
            let directory = StoreDirectory::open(&path, shards).map_err(CannotStart::Directory)?;
            for oddity in directory.oddities() {
                tracing::warn!("STREAM: {oddity}");
            }
            (in_files(&directory, of_store)?, Some(Arc::new(directory)))
        }
    };
    let assembled = assemble(now(), options, stores, shards)?;
    report::subjects(options).iter().for_each(|line| tracing::debug!("STREAM: {line}"));
    let lines = report::store(options).into_iter().chain(report::limits(&options.limits));
    lines.for_each(|line| tracing::info!("STREAM: {line}"));
    let instances = assembled.into_iter().map(|(service, logs)| {
        let place = |log: LogId| Some((log, directory.as_ref()?.log(log)?.clone()));
        let logs = logs.into_iter().filter_map(place).collect();
        ServicePlan { service, logs, directory: directory.clone() }
    });
    Ok(instances.collect())
}

/// An instance, and its logs.
pub(crate) type Assembled = (Box<dyn Service + Send>, Vec<LogId>);

/// An instance for each of `shards` shards with the numbers of its logs, from all logs of a store.
///
/// # Errors
/// The store belongs to a service of another name.
pub(crate) fn assemble(
    now: Time,
    options: &Options,
    stores: Vec<(LogId, Store)>,
    shards: u16,
) -> Result<Vec<Assembled>, CannotStart> {
    let is_memory = options.store == StoreType::Memory;
    let homes = stores.into_iter().map(|(log, store)| Home::open(now, log, store, options, is_memory));
    let homes = homes.collect::<Result<Vec<_>, _>>()?;
    let known = homes.iter().flat_map(|home| home.channels().map(|name| (name, home.log())));
    let places = Arc::new(Places::new(homes.len() as u16, shards, known));
    let clients = homes.first().map(Home::clients).unwrap_or_default();
    match homes.iter().map(|home| home.channels().count()).sum::<usize>() {
        0 if clients.is_empty() => tracing::info!("STREAM: No recovered state"),
        channels => tracing::info!("STREAM: Recovered {channels} channel(s) and {} client(s)", clients.len()),
    }
    let (options, shared) = (Arc::new(options.clone()), Arc::new(Shared::default()));
    let mut of_shards: Vec<Vec<Home>> = (0..shards).map(|_| Vec::new()).collect();
    for home in homes {
        of_shards[usize::from(places.shard_of(home.log()))].push(home);
    }
    let instances = of_shards.into_iter().zip(0..).map(|(homes, shard)| {
        let logs = homes.iter().map(Home::log).collect();
        let service = Streaming::new(now, options.clone(), shared.clone(), places.clone(), shard, homes, &clients);
        (Box::new(service) as Box<dyn Service + Send>, logs)
    });
    Ok(instances.collect())
}

/// What a store of nats-streaming-server has left in a directory without a store of this server.
fn store_of_reference(path: &Path) -> Option<PathBuf> {
    let is_file = |path: &Path, name: &str| path.join(name).is_file();
    if is_file(path, IDENTITY) {
        return None;
    }
    if let Some(name) = ["server.dat", "clients.dat"].into_iter().find(|name| is_file(path, name)) {
        return Some(name.into());
    }
    // What cannot be read is for those who open the directory.
    let mut folders = std::fs::read_dir(path).ok()?.filter_map(Result::ok).map(|entry| entry.path());
    let channel = folders.find(|folder| ["subs.dat", "msgs.1.dat"].into_iter().any(|name| is_file(folder, name)))?;
    channel.file_name().map(PathBuf::from)
}

/// A log for each shard that has no files.
fn in_memory(of_store: store::Options, shards: u16) -> Result<Vec<(LogId, Store)>, CannotStart> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| CannotStart::Io(io::Error::other(error)))?;
    Ok((0..shards).map(|log| (LogId(log), Store::in_memory(LogId(log), StoreId(id), of_store))).collect())
}

/// The logs of a store, opened side by side.
fn in_files(directory: &StoreDirectory, of_store: store::Options) -> Result<Vec<(LogId, Store)>, CannotStart> {
    let open = |log: LogId, place: &LogDirectory| {
        let mut reader = LogReader::new(place);
        let opened = Store::open(&mut reader, now(), log, directory.id(), of_store);
        let Opened { mut store, report } =
            opened.map_err(|refusal| CannotStart::Log(place.path().to_owned(), refusal))?;
        for repair in &report.repairs {
            tracing::warn!("STREAM: {}: {repair}", place.path().display());
        }
        if report.senseless > 0 {
            tracing::error!("STREAM: {}: {} records make no sense", place.path().display(), report.senseless);
        }
        if let Some(free) = place.free_bytes() {
            store.set_free_space(free);
        }
        Ok((log, store))
    };
    std::thread::scope(|scope| {
        let logs = directory.logs().iter().zip(0..);
        let threads = logs.map(|(place, log)| {
            std::thread::Builder::new().name("leat-open".into()).spawn_scoped(scope, move || open(LogId(log), place))
        });
        let threads = threads.collect::<Result<Vec<_>, _>>().map_err(CannotStart::Io)?;
        let ended = |_| CannotStart::Io(io::Error::other("a thread ended"));
        threads.into_iter().map(|thread| thread.join().map_err(ended)?).collect()
    })
}
