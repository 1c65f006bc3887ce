//! What a shard holds between turns, for the simulator.

use super::Shard;
use crate::sim::Audit;

impl Shard {
    /// What waits here.
    pub(crate) fn audit(&mut self) -> Audit {
        let ring_input = self.peers.has_input();
        let conns = || self.local.conns.iter().map(|(_, conn)| conn);
        Audit {
            ring_input,
            spilled: self.peers.is_spilled(),
            spill_bytes: self.peers.spill_bytes(),
            held: conns().filter(|conn| conn.held != 0).count(),
            unserved: self.ready.len()
                + usize::from(!self.local.intake.is_empty())
                + conns().filter(|conn| conn.out.pending() > 0 && !conn.blocked).count(),
        }
    }
}
