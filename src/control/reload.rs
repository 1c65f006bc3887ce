//! The configuration is read again and applied to the running server (SIGHUP).
//!
//! All or nothing: whatever can fail comes first, and then nothing that has to be undone.

use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use super::{InForce, ReadAgain, Running};
use crate::config::{self, Options};
use crate::host;
use crate::logging::{LogConfig, Logging};

impl Running {
    /// Reads the configuration again and applies what has changed. The error says why nothing has.
    pub(super) fn reload(&mut self, logging: &Logging, read_again: ReadAgain<'_>) -> Result<(), String> {
        if self.options.config_file.is_none() {
            return Err("can only reload config when a file is provided using -c or --config".to_owned());
        }
        let (mut options, warnings) = read_again()?;
        if !options.cores_are_given && !self.options.cores_are_given {
            // What was found to be usable at the start.
            options.cores.clone_from(&self.options.cores);
        }
        let changes = config::diff(&self.options, &options).map_err(|error| error.to_string())?;
        let log = logging.prepare(&LogConfig::from(&*self.options), &LogConfig::from(&options));
        let log = log.map_err(|error| error.to_string())?;

        let monitoring = super::monitoring_context(&options)?;
        self.server.reload_tls(&options).map_err(|error| error.to_string())?;
        if let Some((current, context)) = self.monitoring_tls.as_ref().zip(monitoring) {
            current.replace(context);
        }
        logging.change(log);
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        self.write_files(&options);
        let closed = self.server.reload(&options);
        if closed > 0 {
            tracing::info!("Closed {closed} connections to fall within max_connections");
        }
        for change in changes {
            tracing::info!("{change}");
        }
        self.options = Arc::new(options);
        let now = InForce::now(&self.options, &self.server, SystemTime::now());
        *self.in_force.lock().unwrap_or_else(PoisonError::into_inner) = now;
        Ok(())
    }

    /// Writes the files that tell other programs of this one, where they are wanted now. Failure is logged: clients do
    /// not depend on them.
    fn write_files(&mut self, options: &Options) {
        if let Some(path) = options.pid_file.as_ref().filter(|path| self.options.pid_file.as_ref() != Some(path))
            && let Err(error) = host::write_pid_file(path)
        {
            tracing::error!("could not write pid file {}: {error}", path.display());
        }
        let depends_on = |options: &Options| (options.ports_file_dir.clone(), options.requires_tls());
        if depends_on(options) != depends_on(&self.options) {
            drop(self.ports_file.take());
            match self.urls.write(options) {
                Ok(file) => self.ports_file = file,
                Err(error) => tracing::error!("{error}"),
            }
        }
    }
}
