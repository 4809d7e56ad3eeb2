//! Rare events, for the agent's log. Never one per packet.
//!
//! Not marked as cold: such functions go into a section of their own, and aya 0.14 mistakes one for another that has the
//! same offset in its section.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::{btf_maps::Array, macros::btf_map, programs::XdpContext};
use aya_log_ebpf::{info, warn};
use siteswap_common::{maps::Reported, outcome::Outcome};

use crate::tables;

const NAME_BYTES: usize = 16;

/// The outcomes' names, filled up with spaces. In one block, because a table of string slices would need relocations
/// that loaders do not apply to data.
static NAMES: [[u8; NAME_BYTES]; Outcome::COUNT] = {
    let mut names = [[b' '; NAME_BYTES]; Outcome::COUNT];
    let mut index = 0;
    while index < Outcome::COUNT {
        let name = Outcome::ALL[index].name().as_bytes();
        let mut at = 0;
        while at < name.len() {
            names[index][at] = name[at];
            at += 1;
        }
        index += 1;
    }
    names
};

/// The end of the lease that has been reported.
#[btf_map]
static REPORTED: Array<Reported, 1> = Array::new();

/// Reports a counter's first packet on this CPU.
#[inline(never)]
pub fn first(context: &XdpContext, outcome: u32) {
    let Some(name) = NAMES.get(outcome as usize) else {
        return;
    };
    // SAFETY: names are ASCII.
    let name = unsafe { core::str::from_utf8_unchecked(name) };
    info!(context, "first packet on this CPU counted as {}", name);
}

/// Reports that the lease has run out, once for each lease; twice if two CPUs notice it at the same moment, because this
/// target has no atomic exchange.
#[inline(never)]
pub fn unleased(context: &XdpContext) {
    let until = tables::lease();
    let Some(reported) = REPORTED.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: of the map's type; volatile, because other CPUs use it too.
    unsafe {
        if read_volatile(&raw const (*reported).lease_until) == until {
            return;
        }
        write_volatile(&raw mut (*reported).lease_until, until);
    }
    warn!(context, "the agent's lease has run out: queries go up to its server");
}
