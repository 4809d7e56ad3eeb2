//! What the data plane needs of a packet, and how it reads and writes numbers in it.

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

    /// Where the contents of a reshaped frame are.
    type Old: Copy;

    /// Gives the frame a new size of `length` bytes, of which the first `keep` of the old ones stay. They may have moved
    /// towards the end to make room: [`Self::load_old`] finds them. `None`: the frame is as it was.
    fn reshape(&mut self, keep: usize, length: usize) -> Option<Self::Old>;

    /// Reads a value in network order that was at `offset` before the frame was reshaped, if it has not been written
    /// over since.
    fn load_old<W: Word>(&self, old: Self::Old, offset: usize) -> Option<W>;
}

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
