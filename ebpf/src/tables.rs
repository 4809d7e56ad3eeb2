//! The maps, and what the loader sets before the program is verified.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::{
    btf_maps::{Array, ArrayOfMaps, PerCpuArray},
    helpers::generated::{bpf_jiffies64, bpf_ktime_get_coarse_ns},
    macros::btf_map,
};
use siteswap_common::{
    answer::Tables,
    maps::{AnswerSet, Control, MAX_LISTEN, NAME_SEEDS, NAME_SLOTS, NAME_TABLES, NameEntry, SETS},
    outcome::Outcome,
};

/// Seeds by bucket. The inner map here is a template: the agent makes one like it, fills it, and puts it in with one
/// update; while it is in, it does not change.
type Seeds = Array<u32, { NAME_SEEDS as usize }>;

/// Names by slot; likewise.
type Names = Array<NameEntry, { NAME_SLOTS as usize }>;

/// Answers by index; likewise.
type Answers = Array<AnswerSet, { SETS as usize }>;

#[btf_map]
static SEEDS: ArrayOfMaps<Seeds, { NAME_TABLES as usize }> = ArrayOfMaps::new();

#[btf_map]
static NAMES: ArrayOfMaps<Names, { NAME_TABLES as usize }> = ArrayOfMaps::new();

#[btf_map]
static ANSWERS: ArrayOfMaps<Answers, 1> = ArrayOfMaps::new();

#[btf_map]
static CONTROL: Array<Control, 1> = Array::new();

/// Packets by outcome.
#[btf_map]
static COUNTERS: PerCpuArray<u64, { Outcome::COUNT }> = PerCpuArray::new();

/// Addresses in network order, up to the first all-zero one. Aligned so that they can be read as words.
#[repr(C, align(8))]
struct Listen<T>([T; MAX_LISTEN]);

/// Set by the loader: the IPv4 addresses that queries are answered on.
#[unsafe(no_mangle)]
static DNS_V4: Listen<[u8; 4]> = Listen([[0; 4]; MAX_LISTEN]);

/// Set by the loader: the IPv6 ones.
#[unsafe(no_mangle)]
static DNS_V6: Listen<[u8; 16]> = Listen([[0; 16]; MAX_LISTEN]);

/// The maps as the fast path sees them.
pub struct Maps;

impl Tables for Maps {
    #[inline(always)]
    fn serves_v4(&self, address: u32) -> bool {
        for served in &DNS_V4.0 {
            // Volatile, because the compiler knows only the zeros. The verifier knows the loader's values, and removes
            // what comes after the last.
            // SAFETY: four bytes, and aligned: see `Listen`.
            let served = unsafe { read_volatile((&raw const *served).cast::<u32>()) };
            if served == 0 {
                return false;
            }
            if served == address.to_be() {
                return true;
            }
        }
        false
    }

    #[inline(always)]
    fn serves_v6(&self, address: [u64; 2]) -> bool {
        let [high, low] = address.map(u64::to_be);
        for served in &DNS_V6.0 {
            let served = (&raw const *served).cast::<u64>();
            // SAFETY: sixteen bytes, and aligned: see `Listen`.
            let (first, second) = unsafe { (read_volatile(served), read_volatile(served.add(1))) };
            if first == 0 && second == 0 {
                return false;
            }
            if first == high && second == low {
                return true;
            }
        }
        false
    }

    #[inline(always)]
    fn leased(&self) -> Option<u32> {
        let control = CONTROL.get_ptr_mut(0)?;
        // SAFETY: of the map's type; volatile, because the agent changes it meanwhile.
        let (until, names) =
            unsafe { (read_volatile(&raw const (*control).lease_until), read_volatile(&raw const (*control).names)) };
        (until > now(control)).then_some(names)
    }

    #[inline(always)]
    fn seed(&self, names: u32, bucket: u32) -> Option<u32> {
        SEEDS.get_value(names, &bucket).copied()
    }

    #[inline(always)]
    fn name(&self, names: u32, slot: u32) -> Option<&NameEntry> {
        NAMES.get_value(names, &slot)
    }

    #[inline(always)]
    fn set(&self, index: u32) -> Option<&AnswerSet> {
        ANSWERS.get_value(0, &index)
    }
}

/// `CLOCK_MONOTONIC_COARSE`. It advances with jiffies, whose number costs nothing to read, so the program asks for it once
/// per jiffy. Another CPU, or the agent, may write a pair at the same time: then the time is a jiffy too old at most.
#[inline(always)]
fn now(control: *mut Control) -> u64 {
    // SAFETY: helpers without arguments, and a value of the map's type; volatile, because others use it too.
    unsafe {
        let jiffy = bpf_jiffies64();
        if read_volatile(&raw const (*control).jiffy) != jiffy {
            write_volatile(&raw mut (*control).time, bpf_ktime_get_coarse_ns());
            write_volatile(&raw mut (*control).jiffy, jiffy);
        }
        read_volatile(&raw const (*control).time)
    }
}

/// When the lease ends: [`Control::lease_until`].
#[inline(always)]
pub fn lease() -> u64 {
    CONTROL
        .get_ptr(0)
        // SAFETY: of the map's type; volatile, because the agent changes it meanwhile.
        .map_or(0, |lease| unsafe { read_volatile(&raw const (*lease).lease_until) })
}

/// Counts the packet. Whether it is the counter's first on this CPU.
#[inline(always)]
pub fn count(outcome: Outcome) -> bool {
    let Some(counter) = COUNTERS.get_ptr_mut(outcome.index()) else {
        return false;
    };
    // SAFETY: this CPU's own counter, and the program is not interrupted by itself.
    unsafe {
        *counter += 1;
        *counter == 1
    }
}
