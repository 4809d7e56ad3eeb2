//! The programs.

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use siteswap_common::{
    answer::respond,
    outcome::{Action, Outcome},
};

use crate::{
    context::XdpPacket,
    events,
    tables::{self, Maps},
};

/// The data plane: answers what it can, and leaves the rest to the host.
///
/// Inlined into the entry point that the macro makes: as a function of its own it costs a call, and aya 0.14 does not
/// relocate its calls to other sections.
#[xdp]
#[inline(always)]
pub fn siteswap(context: XdpContext) -> u32 {
    let outcome = respond(&mut XdpPacket::new(&context), &Maps);
    if tables::count(outcome) {
        events::first(&context, outcome.index());
    }
    if outcome == Outcome::NoLease {
        events::unleased(&context);
    }
    match outcome.action() {
        Action::Pass => xdp_action::XDP_PASS,
        Action::Transmit => xdp_action::XDP_TX,
        Action::Drop => xdp_action::XDP_DROP,
    }
}

/// For the other end of a veth pair, which takes no frame that was sent by XDP unless it has a program too.
#[xdp]
pub fn stub(_context: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}
