//! Frames that are nearly right, for property tests.

use proptest::{collection::vec, prelude::*, sample::Index};

/// One change to a frame.
#[derive(Clone, Debug)]
enum Change {
    Set(Index, u8),
    Flip(Index, u8),
    Truncate(Index),
    Append(Vec<u8>),
    Remove(Index),
    Insert(Index, u8),
    Copy(Index, Index),
}

impl Change {
    fn apply(&self, frame: &mut Vec<u8>) {
        let length = frame.len();
        match self {
            Self::Set(at, byte) => frame[at.index(length)] = *byte,
            Self::Flip(at, bit) => frame[at.index(length)] ^= 1 << bit,
            Self::Truncate(at) => frame.truncate(at.index(length + 1).max(14)),
            Self::Append(bytes) => frame.extend(bytes),
            Self::Remove(at) if length > 14 => {
                frame.remove(at.index(length));
            }
            Self::Remove(_) => {}
            Self::Insert(at, byte) => frame.insert(at.index(length), *byte),
            Self::Copy(from, to) => frame[to.index(length)] = frame[from.index(length)],
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<Index>;
    prop_oneof![
        (index(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (index(), 0..8u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        index().prop_map(Change::Truncate),
        vec(any::<u8>(), 1..40).prop_map(Change::Append),
        index().prop_map(Change::Remove),
        (index(), any::<u8>()).prop_map(|(at, byte)| Change::Insert(at, byte)),
        (index(), index()).prop_map(|(from, to)| Change::Copy(from, to)),
    ]
}

/// One of the frames with some changes.
pub fn mutated(frames: &'static [Vec<u8>]) -> impl Strategy<Value = Vec<u8>> {
    (any::<Index>(), vec(change(), 0..4)).prop_map(|(which, changes)| {
        let mut frame = which.get(frames).clone();
        for change in &changes {
            change.apply(&mut frame);
        }
        frame
    })
}

/// Random bytes, sometimes behind a frame's headers.
pub fn random(frames: &'static [Vec<u8>]) -> impl Strategy<Value = Vec<u8>> {
    (any::<Index>(), 0..100usize, vec(any::<u8>(), 14..600)).prop_map(|(which, keep, bytes)| {
        let frame = which.get(frames);
        let keep = keep.min(frame.len());
        [&frame[..keep], &bytes].concat()
    })
}
