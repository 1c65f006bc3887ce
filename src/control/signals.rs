//! Signals as values.
//!
//! Owns the one thread that receives signals. It decides nothing and calls nothing: it turns each signal into a
//! [`ControlEvent`] on the control thread's channel.
#![forbid(unsafe_code)]

use std::io;
use std::thread::{self, JoinHandle};

use crossbeam_channel::Sender;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::{Handle, Signals};

/// What a signal asks of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlEvent {
    /// Stop now (SIGINT).
    Stop,
    /// Flush what clients wait for, then stop (SIGTERM).
    Drain,
    /// Close and reopen the log file (SIGUSR1).
    Reopen,
    /// Stop accepting clients and send them away gently (SIGUSR2).
    LameDuck,
    /// Read the configuration again (SIGHUP).
    Reload,
}

const EVENTS: &[(i32, ControlEvent, &str)] = &[
    (SIGINT, ControlEvent::Stop, "interrupt"),
    (SIGTERM, ControlEvent::Drain, "terminated"),
    (SIGUSR1, ControlEvent::Reopen, "user defined signal 1"),
    (SIGUSR2, ControlEvent::LameDuck, "user defined signal 2"),
    (SIGHUP, ControlEvent::Reload, "hangup"),
];

impl ControlEvent {
    /// The signal's name as the log line `Trapped "…" signal` has it.
    pub fn signal_name(self) -> &'static str {
        EVENTS.iter().find(|(_, event, _)| *event == self).map_or("unknown", |(_, _, name)| name)
    }
}

/// The running signal thread.
#[derive(Debug)]
pub struct SignalWatch {
    handle: Handle,
    thread: JoinHandle<()>,
}

/// Starts to receive signals; from here on none of them ends the process by itself.
///
/// When the channel is full the signal thread waits, and further signals of a kind merge into one, as signals do.
pub fn watch(events: Sender<ControlEvent>) -> io::Result<SignalWatch> {
    let mut signals = Signals::new(EVENTS.iter().map(|(signal, _, _)| *signal))?;
    let handle = signals.handle();
    let thread = thread::Builder::new().name("leat-signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            let event = EVENTS.iter().find(|(known, _, _)| *known == signal);
            if let Some((_, event, _)) = event
                && events.send(*event).is_err()
            {
                return;
            }
        }
    })?;
    Ok(SignalWatch { handle, thread })
}

impl SignalWatch {
    /// Ends the thread. Signals are then caught and forgotten, so that a second one does not cut short the exit.
    pub fn stop(self) {
        self.handle.close();
        // The thread ends by itself after close; it panics nowhere, and at exit nobody could act on it.
        let _ = self.thread.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::bounded;
    use signal_hook::low_level::raise;
    use std::time::Duration;

    /// Every signal of the table arrives as its event, and none of them ends the process.
    #[test]
    fn signals_become_events() {
        let (sender, receiver) = bounded(8);
        let watch = watch(sender).unwrap();
        for (signal, event, name) in EVENTS {
            raise(*signal).unwrap();
            assert_eq!(receiver.recv_timeout(Duration::from_secs(10)), Ok(*event));
            assert_eq!(event.signal_name(), *name);
        }
        watch.stop();
        assert!(receiver.recv_timeout(Duration::from_secs(10)).is_err());
    }
}
