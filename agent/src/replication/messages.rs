//! Messages over a stream of frames. One that is longer than a frame goes in several.

use serde::{Serialize, de::DeserializeOwned};
use siteswap_replication::wire::{self, MAX_PART};

use crate::link::frames::{FrameReceiver, FrameSender};

/// A frame's content, so that a frame with its first byte is well below the longest.
const PIECE: usize = 4 << 20;
/// The first byte of a frame that another piece of the same message follows.
const MORE: u8 = 1;
/// The first byte of a message's last frame.
const LAST: u8 = 0;

/// Sends a message.
pub(super) async fn send(frames: &mut FrameSender, message: &impl Serialize) -> Result<(), String> {
    let bytes = wire::pack(message).map_err(str::to_owned)?;
    let mut pieces = bytes.chunks(PIECE).peekable();
    while let Some(piece) = pieces.next() {
        let first = if pieces.peek().is_some() { MORE } else { LAST };
        frames.send(&[&[first], piece].concat()).await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Puts messages together from frames.
#[derive(Debug, Default)]
pub(super) struct Messages {
    partial: Vec<u8>,
}

impl Messages {
    /// The next message; `None` when the peer ends the stream. Safe to cancel.
    pub(super) async fn receive<T: DeserializeOwned>(
        &mut self,
        frames: &mut FrameReceiver,
    ) -> Result<Option<T>, String> {
        loop {
            let Some(frame) = frames.receive().await.map_err(|error| error.to_string())? else { return Ok(None) };
            let (first, piece) = frame.split_first().ok_or("an empty frame")?;
            if self.partial.len() + piece.len() > MAX_PART {
                return Err("a message that is too long".to_owned());
            }
            self.partial.extend_from_slice(piece);
            if *first == LAST {
                let bytes = std::mem::take(&mut self.partial);
                return wire::unpack(&bytes).map(Some).map_err(|error| format!("not a message: {error}"));
            }
        }
    }
}
