//! Whether a client may publish, and where to find that.
//!
//! The verdict of a client's rules is kept with the route that the message needs anyway, as the id of the rules. It is
//! void with the route, and when other rules take the place of these: those have another id.

use std::rc::Rc;

use super::Shard;
use super::account::Route;
use crate::auth::PermissionsId;
use crate::wire::errors::Violation;

/// Whether a client may publish to a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permission {
    Denied,
    /// Its rules allow it.
    Lasting,
    /// It owes a reply there.
    Once,
}

impl Shard {
    /// The route of a message, if not that of the `last` one, or if the client's rules have to be asked. Their verdict
    /// stays with the route, for the next message. `None` if the client may not publish, which it is told.
    #[inline(never)]
    pub(super) fn find_way(
        &mut self,
        conn_slot: u32,
        account: u32,
        subject: &[u8],
        rules: Option<PermissionsId>,
        last: Option<Rc<Route>>,
    ) -> Option<Rc<Route>> {
        let known = match last.or_else(|| self.accounts[account as usize].memoised_route(subject)) {
            Some(route) if route.is_open_to(rules) => return Some(route),
            known => known,
        };
        let permission = if rules.is_some() { self.permission(conn_slot, subject) } else { Permission::Lasting };
        if permission == Permission::Denied {
            return None;
        }
        let route = known.unwrap_or_else(|| self.accounts[account as usize].new_route(subject));
        if permission == Permission::Lasting {
            route.open_to(rules);
        }
        Some(route)
    }

    /// Asks the client's rules about a publish. It is told if it may not.
    pub(super) fn permission(&mut self, conn_slot: u32, subject: &[u8]) -> Permission {
        let Some(permits) = &mut self.local.conns[conn_slot as usize].permits else { return Permission::Lasting };
        if permits.may_publish(subject, &mut self.local.looks) {
            Permission::Lasting
        } else if permits.may_reply(subject, self.now) {
            Permission::Once
        } else {
            self.violation(conn_slot, &Violation::Publish(subject));
            Permission::Denied
        }
    }
}
