//! The flows that are known: which target each one has. All CPUs share them, because a flow's packets do not always come
//! to the same one.
//!
//! A flow's hash names a set, which is one line of the cache, and the rest of the hash tells the flow from others in it. A
//! new flow enters the last ways of its set and leaves them again at the far end; its second packet moves it up to the
//! others, where only a flow that has been idle for a while makes room. So a flood of new flows comes and goes in the last
//! ways, and those that carry traffic stay. (The idea of segmented LRU; Karedla et al., IEEE Computer 27(3), 1994.)
//!
//! A word is written at once, so that two CPUs can lose each other's flow, but never mix two. A lost flow is chosen for
//! anew.
#![expect(clippy::cast_possible_truncation, reason = "fields are cut out of wider words")]

#[cfg(target_arch = "bpf")]
use core::cell::UnsafeCell;
#[cfg(not(target_arch = "bpf"))]
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Tables;
use crate::maps::FLOW_WAYS;

const WAYS: usize = FLOW_WAYS as usize;

/// Ways of a set that hold flows with more than one packet.
const KEPT: usize = 6;

/// Ticks, of 8.6 seconds, after which a flow makes room for another: between one and two of them.
const IDLE: u64 = 2;

// A word, which people see as a `FlowEntry`: 32 bits of the hash, 16 of the target's index, 8 of its generation, and 8 of the
// tick it was last seen in.
const TAG: u32 = 32;
const TARGET: u32 = 16;
const GENERATION: u32 = 8;
const TICK: u64 = 0xff;

/// A set's ways.
pub type Set = [Way; WAYS];

/// A word that other CPUs read and write too.
#[cfg(not(target_arch = "bpf"))]
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Way(AtomicU64);

#[cfg(not(target_arch = "bpf"))]
impl Way {
    /// What is in it now.
    pub fn load(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Puts something else in.
    pub fn store(&self, word: u64) {
        self.0.store(word, Relaxed);
    }
}

/// A word that other CPUs read and write too. LLVM makes no atomic instruction of a relaxed load on BPF, whose aligned
/// loads and stores are that anyway.
#[cfg(target_arch = "bpf")]
#[repr(transparent)]
pub struct Way(UnsafeCell<u64>);

#[cfg(target_arch = "bpf")]
impl Way {
    /// What is in it now.
    #[inline(always)]
    pub fn load(&self) -> u64 {
        // SAFETY: its own word, aligned; volatile, because it changes meanwhile.
        unsafe { self.0.get().read_volatile() }
    }

    /// Puts something else in.
    #[inline(always)]
    pub fn store(&self, word: u64) {
        // SAFETY: as in `load`.
        unsafe { self.0.get().write_volatile(word) }
    }
}

/// The index of a word's target; 0 only in an unused one.
#[inline(always)]
pub const fn target(word: u64) -> u32 {
    (word >> TARGET) as u32 & 0xffff
}

/// The generation of a word's target.
#[inline(always)]
pub const fn generation(word: u64) -> u64 {
    word >> GENERATION & 0xff
}

/// A flow, by its hash.
#[derive(Clone, Copy)]
pub struct Flow {
    /// What tells it from others.
    pub hash: u64,
    tick: u64,
}

/// A flow that was found.
#[derive(Clone, Copy)]
pub struct Known {
    way: usize,
    /// As it is in the set.
    pub word: u64,
}

impl Flow {
    /// The flow with this hash, seen now (nanoseconds).
    #[inline(always)]
    pub const fn new(hash: u64, now: u64) -> Self {
        Self { hash, tick: now >> 33 & TICK }
    }

    /// Finds it.
    #[inline(always)]
    pub fn find(self, set: &Set) -> Option<Known> {
        let mut way = 0;
        while way < WAYS {
            let word = set[way].load();
            if word >> TAG == self.hash >> TAG && target(word) != 0 {
                return Some(Known { way, word });
            }
            way += 1;
        }
        None
    }

    /// Notes that it was seen, and moves it up from the last ways.
    #[inline(always)]
    pub fn refresh(self, set: &Set, Known { way, word }: Known, tables: &impl Tables) {
        let fresh = word & !TICK | self.tick;
        if way >= KEPT {
            self.move_up(set, way, fresh, tables);
        } else if fresh != word {
            tables.keep(&set[way % WAYS], fresh);
        }
    }

    /// Changes places with an unused way or the flow that has been idle longest, if one has.
    #[inline(always)]
    fn move_up(self, set: &Set, from: usize, word: u64, tables: &impl Tables) {
        let (mut place, mut most, mut displaced) = (from, IDLE - 1, 0);
        let mut way = 0;
        while way < KEPT {
            let other = set[way].load();
            let idle = if target(other) == 0 { TICK + 1 } else { self.tick.wrapping_sub(other) & TICK };
            if idle > most {
                (place, most, displaced) = (way, idle, other);
            }
            way += 1;
        }
        tables.keep(&set[place % WAYS], word);
        if place != from {
            tables.keep(&set[from % WAYS], displaced);
        }
    }

    /// Enters it with its target: where it was, if it was known, or else in the first of the last ways.
    #[inline(always)]
    pub fn insert(self, set: &Set, known: Option<Known>, target: u32, generation: u32, tables: &impl Tables) {
        let generation = u64::from(generation) & 0xff;
        let word = self.hash >> TAG << TAG | u64::from(target) << TARGET | generation << GENERATION | self.tick;
        if let Some(Known { way, .. }) = known {
            return tables.keep(&set[way % WAYS], word);
        }
        let mut way = WAYS - 1;
        while way > KEPT {
            tables.keep(&set[way], set[way - 1].load());
            way -= 1;
        }
        tables.keep(&set[KEPT], word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maps::FlowEntry;

    #[test]
    fn people_see_in_a_flow_what_the_program_sees() {
        let entry = FlowEntry { seen: 0x12, generation: 0x34, target: 0x5678, hash: 0x9abc_def0 };
        // SAFETY: eight bytes without padding.
        let word = u64::from_le(unsafe { core::mem::transmute::<FlowEntry, u64>(entry) });
        assert_eq!((target(word), generation(word), word & TICK), (0x5678, 0x34, 0x12));
        assert_eq!(word >> TAG, 0x9abc_def0);
    }
}
