//! What the data plane needs of a packet, and how it reads and writes numbers in it.

use core::ptr::{read_volatile, write_volatile};

/// A frame from its destination MAC address on.
///
/// Offsets are in bytes from the frame's first one. Both accessors give `None` when any byte lies outside the frame,
/// and then nothing has been read or written.
pub trait Packet {
    /// Bytes in the frame.
    fn length(&self) -> usize;

    /// Reads a value in network order.
    fn load<W: Word>(&self, offset: usize) -> Option<W>;

    /// Writes a value in network order.
    fn store<W: Word>(&mut self, offset: usize, word: W) -> Option<()>;

    /// A new view of the frame, and `number`, at most [`MOST_FORGOTTEN`], as if nothing were known of either. Only the
    /// verifier minds: it follows every path with all that it has learned, and so the paths through a loop, which differ
    /// in what is known of its bound, would each go through the next loop in every way.
    fn forget(&mut self, number: usize) -> usize;

    /// A place in the frame, until it is reshaped.
    type Place: Copy;

    /// The place at `offset`.
    fn place(&self, offset: usize) -> Self::Place;

    /// Reads a value in network order that is `offset` behind a place.
    fn get<W: Word>(&self, place: Self::Place, offset: usize) -> Option<W>;

    /// Writes a value in network order `offset` behind a place.
    fn set<W: Word>(&mut self, place: Self::Place, offset: usize, word: W) -> Option<()>;

    /// Writes a value in network order and moves the place behind it.
    fn put<W: Word>(&mut self, place: &mut Self::Place, word: W) -> Option<()>;

    /// Gives the frame a new size of `length` bytes, more than the first `keep` of the old ones, which stay. They may have
    /// moved towards the end to make room: that is where the place is. `None`: the frame is as it was.
    fn reshape(&mut self, keep: usize, length: usize) -> Option<Self::Place>;

    /// Puts `bytes` new bytes, whatever is in them, before the frame's first one. `None`: there is no room, and the frame
    /// is as it was.
    fn push(&mut self, bytes: usize) -> Option<()>;

    /// Takes `bytes` bytes away from the frame's start. `None`: it has not so many, and is as it was.
    fn pull(&mut self, bytes: usize) -> Option<()>;

    /// Takes away what is behind the first `length` bytes. `None`: there are not so many, and the frame is as it was.
    fn truncate(&mut self, length: usize) -> Option<()>;
}

/// The same number, but LLVM does not know that: it would leave out checks that follow from what it knows, and the
/// verifier would miss them. In two instructions, where [`core::hint::black_box`] takes four.
#[inline(always)]
pub fn opaque(number: usize) -> usize {
    let mut slot = 0;
    // SAFETY: a variable's own address.
    unsafe {
        write_volatile(&raw mut slot, number);
        read_volatile(&raw const slot)
    }
}

/// See [`Packet::forget`].
pub const MOST_FORGOTTEN: usize = 0xff;

/// A number, or some of them, in network order on the wire and in host order here.
pub trait Word: Copy + sealed::Sealed {
    /// Bytes on the wire.
    const SIZE: usize;

    /// Reads from `at`.
    ///
    /// # Safety
    ///
    /// `at` must be valid for reading [`Self::SIZE`] bytes; it need not be aligned.
    unsafe fn read(at: *const u8) -> Self;

    /// Writes to `at`.
    ///
    /// # Safety
    ///
    /// `at` must be valid for writing [`Self::SIZE`] bytes; it need not be aligned.
    unsafe fn write(self, at: *mut u8);
}

mod sealed {
    pub trait Sealed {}
    impl<W: super::Word, const N: usize> Sealed for [W; N] {}
}

macro_rules! word {
    ($($integer:ty)*) => {$(
        impl sealed::Sealed for $integer {}

        impl Word for $integer {
            const SIZE: usize = size_of::<Self>();

            #[inline(always)]
            unsafe fn read(at: *const u8) -> Self {
                // LLVM takes an unaligned load on BPF apart into bytes, which costs ten instructions a word; the
                // machine itself needs no alignment, and the verifier allows it wherever the CPU is good at it.
                #[cfg(target_arch = "bpf")]
                // SAFETY: valid for reading, as the caller promises; BPF has no alignment to violate.
                let word = unsafe { *at.cast::<Self>() };
                #[cfg(not(target_arch = "bpf"))]
                // SAFETY: valid for reading, as the caller promises.
                let word = unsafe { at.cast::<Self>().read_unaligned() };
                Self::from_be(word)
            }

            #[inline(always)]
            unsafe fn write(self, at: *mut u8) {
                #[cfg(target_arch = "bpf")]
                // SAFETY: as in `read`.
                unsafe {
                    *at.cast::<Self>() = self.to_be();
                }
                #[cfg(not(target_arch = "bpf"))]
                // SAFETY: valid for writing, as the caller promises.
                unsafe {
                    at.cast::<Self>().write_unaligned(self.to_be());
                }
            }
        }
    )*};
}

word!(u8 u16 u32 u64);

/// A number whose first byte on the wire is its lowest: for what is only moved or compared, because most machines read it
/// as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Le<T>(pub T);

macro_rules! little {
    ($($integer:ty)*) => {$(
        impl sealed::Sealed for Le<$integer> {}

        impl Word for Le<$integer> {
            const SIZE: usize = size_of::<$integer>();

            #[inline(always)]
            unsafe fn read(at: *const u8) -> Self {
                // SAFETY: as the caller promises.
                Self(unsafe { <$integer>::read(at) }.swap_bytes())
            }

            #[inline(always)]
            unsafe fn write(self, at: *mut u8) {
                // SAFETY: as the caller promises.
                unsafe { self.0.swap_bytes().write(at) }
            }
        }
    )*};
}

little!(u32 u64);

macro_rules! tuple {
    ($($($name:ident)*;)*) => {$(
        impl<$($name: Word),*> sealed::Sealed for ($($name,)*) {}

        /// Neighbouring values, checked against the frame's end once.
        impl<$($name: Word),*> Word for ($($name,)*) {
            const SIZE: usize = 0 $(+ $name::SIZE)*;

            #[inline(always)]
            #[allow(non_snake_case, unused_assignments, reason = "a name for each type")]
            unsafe fn read(at: *const u8) -> Self {
                let mut offset = 0;
                // SAFETY: the caller promises the sum of all sizes.
                unsafe {
                    $(
                        let $name = $name::read(at.add(offset));
                        offset += $name::SIZE;
                    )*
                    ($($name,)*)
                }
            }

            #[inline(always)]
            #[allow(non_snake_case, unused_assignments, reason = "a name for each type")]
            unsafe fn write(self, at: *mut u8) {
                let ($($name,)*) = self;
                let mut offset = 0;
                // SAFETY: as in `read`.
                unsafe {
                    $(
                        $name.write(at.add(offset));
                        offset += $name::SIZE;
                    )*
                }
            }
        }
    )*};
}

tuple! {
    A B;
    A B C;
    A B C D;
    A B C D E;
}

/// Neighbouring numbers, checked against the frame's end once.
impl<W: Word + Default, const N: usize> Word for [W; N] {
    const SIZE: usize = N * W::SIZE;

    #[inline(always)]
    unsafe fn read(at: *const u8) -> Self {
        let mut words = [W::default(); N];
        for (index, word) in words.iter_mut().enumerate() {
            // SAFETY: the caller promises `N` times the size of one.
            *word = unsafe { W::read(at.add(index * W::SIZE)) };
        }
        words
    }

    #[inline(always)]
    unsafe fn write(self, at: *mut u8) {
        for (index, word) in self.into_iter().enumerate() {
            // SAFETY: as in `read`.
            unsafe { word.write(at.add(index * W::SIZE)) };
        }
    }
}
