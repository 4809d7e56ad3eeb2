//! Finding a keyword in a page that arrives in pieces.

/// Looks for a word in a stream of bytes, however it is cut.
pub(super) struct Search<'a> {
    word: &'a [u8],
    /// The end of what was seen, too short to hold the word.
    tail: Vec<u8>,
    seen: usize,
}

impl<'a> Search<'a> {
    pub(super) fn new(word: &'a str) -> Self {
        Self { word: word.as_bytes(), tail: Vec::new(), seen: 0 }
    }

    /// Takes the next bytes. True: the word ends in them.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> bool {
        self.seen += bytes.len();
        let keep = self.word.len().saturating_sub(1);
        self.tail.extend_from_slice(&bytes[..bytes.len().min(keep)]);
        if holds(&self.tail, self.word) || holds(bytes, self.word) {
            return true;
        }
        if bytes.len() > keep {
            self.tail.clear();
            self.tail.extend_from_slice(&bytes[bytes.len() - keep..]);
        } else {
            self.tail.drain(..self.tail.len().saturating_sub(keep));
        }
        false
    }

    /// Bytes so far.
    pub(super) fn seen(&self) -> usize {
        self.seen
    }
}

fn holds(mut bytes: &[u8], word: &[u8]) -> bool {
    let Some(first) = word.first() else {
        return true;
    };
    while let Some(at) = bytes.iter().position(|byte| byte == first) {
        bytes = &bytes[at..];
        if bytes.starts_with(word) {
            return true;
        }
        bytes = &bytes[1..];
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn a_word_is_found_however_the_page_is_cut(
            word in "[ab]{1,5}", pieces in vec("[ab]{0,7}", 0..12)
        ) {
            let mut search = Search::new(&word);
            let found = pieces.iter().any(|piece| search.feed(piece.as_bytes()));
            prop_assert_eq!(found, pieces.concat().contains(&word));
            if !found {
                prop_assert_eq!(search.seen(), pieces.concat().len());
            }
        }
    }
}
