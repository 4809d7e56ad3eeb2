//! The programs.
#![expect(clippy::cast_possible_truncation, reason = "fields are cut out of wider words")]

use aya_ebpf::{bindings::xdp_action, helpers::generated::bpf_redirect, macros::xdp, programs::XdpContext};
use siteswap_common::{
    answer::respond,
    outcome::{Action, Outcome},
    steer::{Steered, steer},
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
    let steered = match respond(&mut XdpPacket::new(&context), &Maps) {
        // None of these was a query, so it may be a request.
        otherwise @ (Outcome::NotUdp | Outcome::NotDnsAddress | Outcome::NotDnsPort) => {
            Packed(steered(&context)).unpack(otherwise)
        }
        outcome => outcome.into(),
    };
    let Steered { outcome, interface, .. } = steered;
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

/// What becomes of a frame that is no query.
///
/// Not inlined, so that the way of a query stays short; and so it can call nothing itself.
#[inline(never)]
fn steered(context: &XdpContext) -> u64 {
    Packed::new(steer(&mut XdpPacket::new(context), &Maps)).0
}

/// An optional [`Steered`] in what a function can return: the interface in the upper half, then the target, whether a
/// flow decided, and the outcome, or [`Packed::NONE`] in its place.
struct Packed(u64);

impl Packed {
    const NONE: u64 = 0xff;

    #[inline(always)]
    fn new(steered: Option<Steered>) -> Self {
        Self(steered.map_or(Self::NONE, |Steered { outcome, interface, target, established }| {
            u64::from(interface) << 32
                | u64::from(target & 0xffff) << 16
                | u64::from(established) << 8
                | u64::from(outcome.index())
        }))
    }

    #[inline(always)]
    fn unpack(self, otherwise: Outcome) -> Steered {
        let outcome = Outcome::from_index(self.0 as u32 & 0xff).unwrap_or(otherwise);
        Steered {
            outcome,
            interface: (self.0 >> 32) as u32,
            target: (self.0 >> 16) as u32 & 0xffff,
            established: self.0 >> 8 & 1 != 0,
        }
    }
}

const _: () = assert!((Outcome::COUNT as u64) < Packed::NONE);

/// For the other end of a veth pair, which takes no frame that was sent by XDP unless it has a program too.
#[xdp]
pub fn stub(_context: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}
