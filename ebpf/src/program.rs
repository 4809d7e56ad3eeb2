//! The programs.
#![expect(clippy::cast_possible_truncation, reason = "fields are cut out of wider words")]

use aya_ebpf::{bindings::xdp_action, helpers::generated::bpf_redirect, macros::xdp, programs::XdpContext};
use siteswap_common::{
    outcome::{Action, Outcome},
    steer::receive,
};

use crate::{
    context::XdpPacket,
    events,
    tables::{self, Maps},
};

/// The data plane: answers queries, steers requests, and leaves the rest to the host.
///
/// Inlined into the entry point that the macro makes: as a function of its own it costs a call, and aya 0.14 does not
/// relocate its calls to other sections.
#[xdp]
#[inline(always)]
pub fn siteswap(context: XdpContext) -> u32 {
    let steered = receive(&mut XdpPacket::new(&context), &Maps);
    let (outcome, interface) = (steered.outcome(), steered.interface());
    if tables::explains() {
        tables::explain(steered);
    } else if tables::count(outcome) {
        events::first(&context, outcome.index());
    }
    if outcome == Outcome::NoLease {
        events::unleased(&context);
    }
    match outcome.action() {
        Action::Pass => xdp_action::XDP_PASS,
        Action::Transmit => xdp_action::XDP_TX,
        Action::Drop => xdp_action::XDP_DROP,
        // SAFETY: the program's own context.
        Action::Send if interface == unsafe { (*context.ctx).ingress_ifindex } => xdp_action::XDP_TX,
        // SAFETY: a helper without pointers.
        Action::Send => unsafe { bpf_redirect(interface, 0) as u32 },
    }
}

/// For the other end of a veth pair, which takes no frame that was sent by XDP unless it has a program too.
#[xdp]
pub fn stub(_context: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}
