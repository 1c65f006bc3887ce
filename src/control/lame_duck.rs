//! Lame duck mode: no new clients, a word to those who are here, then closing them bit by bit.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::signals::ControlEvent;
use crate::config::Options;
use crate::logging::Logging;
use crate::server::Server;

/// Longest pause between two closes.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Shortest pause: with many clients several are closed at once.
const PAUSE_MIN: Duration = Duration::from_millis(5);

/// Returns when all clients are gone, the time is up, or SIGINT came.
pub(super) fn run(server: &Server, options: &Options, events: &Receiver<ControlEvent>, logging: &Logging) {
    tracing::info!("Entering lame duck mode, stop accepting new clients");
    server.stop_listening();
    server.announce_lame_duck();
    if server.shared().connections() == 0 {
        return;
    }
    let grace_end = Instant::now() + options.lame_duck_grace_period;
    if !wait_until(grace_end, server, events, logging) {
        return;
    }
    tracing::info!("Closing existing clients");
    let time = options.lame_duck_duration.saturating_sub(options.lame_duck_grace_period);
    let deadline = Instant::now() + time;
    loop {
        let left = server.shared().connections();
        let time = deadline.saturating_duration_since(Instant::now());
        if left == 0 || time.is_zero() {
            return;
        }
        let pause = time / u32::try_from(left).unwrap_or(u32::MAX);
        let count = (PAUSE_MIN.as_nanos() / pause.as_nanos().max(1)).max(1);
        server.close_some(usize::try_from(count).unwrap_or(left));
        // Between half and all of the pause, so that clients of many servers do not move in step.
        let pause = pause.clamp(PAUSE_MIN, PAUSE_MAX).mul_f64(0.5 + fastrand::f64() / 2.0);
        if !wait_until(Instant::now() + pause, server, events, logging) {
            return;
        }
    }
}

/// `false` if the server shall stop at once: SIGINT, or nobody is left. SIGTERM is ignored here.
fn wait_until(end: Instant, server: &Server, events: &Receiver<ControlEvent>, logging: &Logging) -> bool {
    loop {
        if server.shared().connections() == 0 {
            return false;
        }
        let step = end.min(Instant::now() + Duration::from_millis(100));
        match events.recv_deadline(step) {
            Ok(ControlEvent::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
            Ok(ControlEvent::Reopen) => logging.reopen(),
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) if Instant::now() >= end => return true,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}
