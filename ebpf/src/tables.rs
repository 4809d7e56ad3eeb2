//! The maps, and what the loader sets before the program is verified.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::{
    btf_maps::{Array, ArrayOfMaps, PerCpuArray},
    helpers::generated::{bpf_jiffies64, bpf_ktime_get_coarse_ns},
    macros::btf_map,
};
use siteswap_common::{
    answer::{self, Present},
    maps::{
        ADDRESS_SEEDS as BUCKETS, ADDRESS_SLOTS, AddressEntry, AnswerSet, Control, Counter, Errors, FLOW_SETS, FlowSet,
        Found, InstanceEntry, MAX_LISTEN, MAX_PEERS, NAME_SEEDS, NAME_SLOTS, NameEntry, RING_CHUNKS, RingChunk, SETS,
        TABLES, TARGETS as MOST_TARGETS, Target, TunnelPeer,
    },
    outcome::Outcome,
    steer::{self, Steered, flows},
};

/// Seeds by bucket. The inner map here is a template: the agent makes one like it, fills it, and puts it in with one
/// update; while it is in, it does not change.
type Seeds = Array<u32, { NAME_SEEDS as usize }>;

/// Names by slot; likewise.
type Names = Array<NameEntry, { NAME_SLOTS as usize }>;

/// Answers by index; likewise.
type Answers = Array<AnswerSet, { SETS as usize }>;

/// Seeds of addresses by bucket; likewise.
type AddressSeeds = Array<u32, { BUCKETS as usize }>;

/// Addresses by slot; likewise.
type Addresses = Array<AddressEntry, { ADDRESS_SLOTS as usize }>;

#[btf_map]
static SEEDS: ArrayOfMaps<Seeds, { TABLES as usize }> = ArrayOfMaps::new();

#[btf_map]
static NAMES: ArrayOfMaps<Names, { TABLES as usize }> = ArrayOfMaps::new();

#[btf_map]
static ADDRESS_SEEDS: ArrayOfMaps<AddressSeeds, { TABLES as usize }> = ArrayOfMaps::new();

#[btf_map]
static ADDRESSES: ArrayOfMaps<Addresses, { TABLES as usize }> = ArrayOfMaps::new();

/// Requests by resource.
#[btf_map]
static INSTANCES: Array<InstanceEntry, { SETS as usize }> = Array::new();

/// Maglev's tables, one behind the other.
#[btf_map]
static RINGS: Array<RingChunk, { RING_CHUNKS as usize }> = Array::new();

/// Backends and peers.
#[btf_map]
static TARGETS: Array<Target, { MOST_TARGETS as usize }> = Array::new();

/// `BPF_F_MMAPABLE`: it makes a map's values begin at a page, and so each set of flows at a line of the cache.
const ALIGNED: usize = 1 << 10;

/// Flows that are known. The loader may say another number of them.
#[btf_map]
static FLOWS: Array<FlowSet, { FLOW_SETS as usize }, ALIGNED> = Array::new();

/// ICMP errors in the present span of time.
#[btf_map]
static ERRORS: Array<Errors, 1> = Array::new();

#[btf_map]
static ANSWERS: ArrayOfMaps<Answers, 1> = ArrayOfMaps::new();

#[btf_map]
static CONTROL: Array<Control, 1> = Array::new();

/// Packets by outcome.
#[btf_map]
static COUNTERS: PerCpuArray<Counter, { Outcome::COUNT }> = PerCpuArray::new();

/// Addresses in network order, up to the first all-zero one. Aligned so that they can be read as words.
#[repr(C, align(8))]
struct Listen<T>([T; MAX_LISTEN]);

/// Set by the loader: the IPv4 addresses that queries are answered on.
#[unsafe(no_mangle)]
static DNS_V4: Listen<[u8; 4]> = Listen([[0; 4]; MAX_LISTEN]);

/// Set by the loader: the IPv6 ones.
#[unsafe(no_mangle)]
static DNS_V6: Listen<[u8; 16]> = Listen([[0; 16]; MAX_LISTEN]);

/// Set by the loader: address and port of this end of the tunnel, and what the site calls itself there, host order.
#[unsafe(no_mangle)]
static TUNNEL: [u32; 3] = [0; 3];

/// Set by the loader: the other ends.
#[unsafe(no_mangle)]
static PEERS: [TunnelPeer; MAX_PEERS] = [TunnelPeer { address: [0; 4], site: 0 }; MAX_PEERS];

/// Set by the loader: the entries of `FLOWS`, less one.
#[unsafe(no_mangle)]
static FLOW_MASK: u32 = FLOW_SETS - 1;

/// Set by the loader: 1 in the program that explains what would become of a packet, and changes nothing.
#[unsafe(no_mangle)]
static EXPLAINS: u32 = 0;

/// What the loader has set.
#[inline(always)]
fn constant(word: &u32) -> u32 {
    // SAFETY: a reference; volatile, because the compiler knows only what is here. The verifier knows the loader's value.
    unsafe { read_volatile(word) }
}

/// The maps as the fast path sees them.
pub struct Maps;

impl answer::Tables for Maps {
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
    fn present(&self) -> Present {
        let Some(control) = CONTROL.get_ptr_mut(0) else {
            return Present { leased: false, names: 0, addresses: 0, flow_seed: 0, now: 0 };
        };
        let now = now(control);
        // SAFETY: of the map's type; volatile, because the agent changes it meanwhile.
        unsafe {
            Present {
                leased: read_volatile(&raw const (*control).lease_until) > now,
                names: read_volatile(&raw const (*control).names),
                addresses: read_volatile(&raw const (*control).addresses),
                flow_seed: read_volatile(&raw const (*control).flow_seed),
                now,
            }
        }
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

/// ICMP errors in a span of time: about a thousand a second.
const MOST_ERRORS: u64 = 128;

impl steer::Tables for Maps {
    #[inline(always)]
    fn address_seed(&self, addresses: u32, bucket: u32) -> Option<u32> {
        ADDRESS_SEEDS.get_value(addresses, &bucket).copied()
    }

    #[inline(always)]
    fn address(&self, addresses: u32, slot: u32) -> Option<&AddressEntry> {
        ADDRESSES.get_value(addresses, &slot)
    }

    #[inline(always)]
    fn instance(&self, index: u32) -> Option<&InstanceEntry> {
        INSTANCES.get(index)
    }

    #[inline(always)]
    fn ring(&self, chunk: u32) -> Option<&RingChunk> {
        RINGS.get(chunk)
    }

    #[inline(always)]
    fn target(&self, index: u32) -> Option<&Target> {
        TARGETS.get(index)
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the lower bits are what counts")]
    fn flows(&self, hash: u64) -> Option<&flows::Set> {
        let set = hash as u32 & constant(&FLOW_MASK);
        // SAFETY: as many words, aligned; nobody has a reference to what is in them.
        FLOWS.get_ptr_mut(set).map(|set| unsafe { &*set.cast::<flows::Set>() })
    }

    #[inline(always)]
    fn keep(&self, flow: &flows::Way, word: u64) {
        if constant(&EXPLAINS) == 0 {
            flow.store(word);
        }
    }

    #[inline(always)]
    fn tunnel(&self) -> (u32, u32) {
        (constant(&TUNNEL[0]), constant(&TUNNEL[1]))
    }

    #[inline(always)]
    fn site(&self) -> u32 {
        constant(&TUNNEL[2])
    }

    #[inline(always)]
    fn peer(&self, address: u32) -> Option<u32> {
        for peer in &PEERS {
            let peer = (&raw const *peer).cast::<u32>();
            // SAFETY: two words, and aligned for the second.
            let (other, site) = unsafe { (read_volatile(peer), read_volatile(peer.add(1))) };
            if other == 0 {
                return None;
            }
            if other == address.to_be() {
                return Some(site);
            }
        }
        None
    }

    #[inline(always)]
    fn may_tell(&self, now: u64) -> bool {
        // 134 milliseconds.
        let span = now >> 27;
        let Some(errors) = ERRORS.get_ptr_mut(0) else { return false };
        // SAFETY: of the map's type. Another CPU may count at the same time: then one more or less is sent.
        let Errors { span: counted, count } = unsafe { read_volatile(errors) };
        let count = if counted == span { count } else { 0 };
        if constant(&EXPLAINS) == 0 {
            // SAFETY: as above.
            unsafe { write_volatile(errors, Errors { span, count: count + 1 }) };
        }
        count < MOST_ERRORS
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

/// Whether this program only explains what it would do.
#[inline(always)]
pub fn explains() -> bool {
    constant(&EXPLAINS) != 0
}

/// What the explaining program found.
#[btf_map]
static EXPLAINED: Array<Found, 1> = Array::new();

/// Leaves the explanation for the agent.
#[inline(always)]
pub fn explain(steered: Steered) {
    if let Some(explained) = EXPLAINED.get_ptr_mut(0) {
        let found = Found {
            outcome: steered.outcome().index(),
            target: steered.target(),
            interface: steered.interface(),
            knew: steered.knew(),
        };
        // SAFETY: of the map's type; nobody else runs the explaining program meanwhile.
        unsafe { *explained = found };
    }
}

/// Counts the packet. Whether it is the counter's first on this CPU.
#[inline(always)]
pub fn count(outcome: Outcome) -> bool {
    let Some(counter) = COUNTERS.get_ptr_mut(outcome.index()) else {
        return false;
    };
    // SAFETY: this CPU's own counter, and the program is not interrupted by itself.
    unsafe {
        (*counter).packets += 1;
        (*counter).packets == 1
    }
}
