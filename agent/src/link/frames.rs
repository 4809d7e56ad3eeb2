//! Streams of frames: what two agents say to each other for as long as they are connected.
//!
//! A frame is its length, four bytes, big-endian, and that many bytes. Frames arrive whole and in order. A reader that is
//! slow makes the sender wait (RFC 9000 §4.1), and heartbeats, reports and requests go first, so that a stream of frames
//! delays nothing else, however much goes over it.

use std::{future::pending, sync::Arc};

use quinn::{Connection, ReadError, RecvStream, SendStream, WriteError};
use tokio::sync::oneshot;

use super::{
    close::{self, Close},
    message,
    status::Counters,
};

/// A frame is at most this long, in bytes.
pub const MAX_FRAME: usize = 16 << 20;

/// What a stream of frames is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// Changes to the database, and their acknowledgements.
    Changes,
    /// Questions about the database's rows, and their answers.
    Comparison,
}

const LENGTH: usize = size_of::<u32>();

/// Below that of all other streams, which is 0: what is ready on those is sent first.
const PRIORITY: i32 = -1;

/// Both directions of a stream. Dropped, each of them ends.
#[derive(Debug)]
pub struct Frames {
    /// To the peer.
    pub sender: FrameSender,
    /// From the peer.
    pub receiver: FrameReceiver,
}

/// Sends frames. Dropped, the peer gets what was sent and then hears that there is no more.
#[derive(Debug)]
pub struct FrameSender {
    stream: SendStream,
    /// The last frame has not been sent whole.
    torn: bool,
}

/// Receives frames. Dropped, the peer can send no more.
#[derive(Debug)]
pub struct FrameReceiver {
    stream: RecvStream,
    /// Of the frame that is coming, once it is known.
    length: Option<usize>,
    /// What has come of it, or of its length.
    partial: Vec<u8>,
    replaced: Option<oneshot::Receiver<()>>,
    counters: Arc<Counters>,
}

/// Why a stream of frames goes no further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A frame, or what the peer says that its next one is, is too long.
    #[error("a frame of {0} bytes, at most {MAX_FRAME} are allowed")]
    TooLong(usize),
    /// The stream ended within a frame.
    #[error("a frame was left unfinished")]
    Torn,
    /// The peer has opened another one about the same, which counts.
    #[error("the peer has opened another stream")]
    Replaced,
    /// The connection ended, or the peer gave the stream up; the text is for people.
    #[error("{0}")]
    Ended(String),
}

impl Frames {
    /// Opens a stream to the peer.
    pub(super) async fn open(
        connection: &Connection,
        topic: Topic,
        counters: &Arc<Counters>,
    ) -> Result<Self, FrameError> {
        let stream = connection.open_bi().await.map_err(|error| FrameError::Ended(close::describe(&error)))?;
        let mut frames = Self::new(stream, None, Arc::clone(counters));
        frames.sender.stream.write_all(&message::encode_frames(topic)).await?;
        Ok(frames)
    }

    /// A stream that has said what it is for.
    /// `replaced` tells that another one takes over.
    pub(super) fn new(
        (send, receive): (SendStream, RecvStream),
        replaced: Option<oneshot::Receiver<()>>,
        counters: Arc<Counters>,
    ) -> Self {
        // Cannot fail: nobody has closed it.
        let _ = send.set_priority(PRIORITY);
        let receiver = FrameReceiver { stream: receive, length: None, partial: Vec::new(), replaced, counters };
        Self { sender: FrameSender { stream: send, torn: false }, receiver }
    }
}

impl FrameSender {
    /// Sends a frame; waits while the peer has not read enough of those before. That it was sent does not mean that it
    /// arrived.
    ///
    /// Not safe to cancel: a frame that has begun cannot be taken back, so nothing can be sent after it.
    ///
    /// # Errors
    /// `TooLong`: nothing was sent. `Torn` after a cancelled one. `Ended`.
    pub async fn send(&mut self, frame: &[u8]) -> Result<(), FrameError> {
        let length = u32::try_from(frame.len()).ok().filter(|_| frame.len() <= MAX_FRAME);
        let length = length.ok_or(FrameError::TooLong(frame.len()))?;
        if std::mem::replace(&mut self.torn, true) {
            return Err(FrameError::Torn);
        }
        self.stream.write_all(&length.to_be_bytes()).await?;
        self.stream.write_all(frame).await?;
        self.torn = false;
        Ok(())
    }
}

impl FrameReceiver {
    /// The next frame; `None` when the peer sends no more. Safe to cancel.
    ///
    /// # Errors
    /// `TooLong`: the stream is closed, which is counted as a malformed message. `Torn`, `Replaced`, `Ended`. After an
    /// error none comes any more.
    pub async fn receive(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        loop {
            let missing = self.length.unwrap_or(LENGTH) - self.partial.len();
            if missing == 0 {
                if let Some(frame) = self.complete()? {
                    return Ok(Some(frame));
                }
                continue;
            }
            let chunk = tokio::select! {
                biased;
                () = replaced(&mut self.replaced) => {
                    self.stop(Close::Replaced);
                    return Err(FrameError::Replaced);
                }
                chunk = self.stream.read_chunk(missing, true) => chunk?,
            };
            match chunk {
                Some(chunk) => self.partial.extend_from_slice(&chunk.bytes),
                None if self.length.is_none() && self.partial.is_empty() => return Ok(None),
                None => return Err(FrameError::Torn),
            }
        }
    }

    /// What has come is whole: the length of a frame, or the frame.
    fn complete(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        let whole = std::mem::take(&mut self.partial);
        if self.length.take().is_some() {
            return Ok(Some(whole));
        }
        let length = whole.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        if length > MAX_FRAME {
            self.counters.malformed.add();
            self.stop(Close::Malformed);
            return Err(FrameError::TooLong(length));
        }
        self.length = Some(length);
        // Memory that nothing is written to is none yet, so a long frame costs what has come of it.
        self.partial = Vec::with_capacity(length);
        Ok(None)
    }

    fn stop(&mut self, why: Close) {
        // Fails only if it has ended already.
        let _ = self.stream.stop((why as u32).into());
    }
}

/// Ends when another stream takes over; when only the connection ends, that is read from the stream.
async fn replaced(signal: &mut Option<oneshot::Receiver<()>>) {
    if let Some(waiting) = signal {
        let replaced = waiting.await.is_ok();
        *signal = None;
        if replaced {
            return;
        }
    }
    pending::<()>().await;
}

impl From<WriteError> for FrameError {
    fn from(error: WriteError) -> Self {
        Self::Ended(match error {
            WriteError::ConnectionLost(error) => close::describe(&error),
            WriteError::Stopped(code) => format!("the peer takes no more frames on this stream, code {code}"),
            other => other.to_string(),
        })
    }
}

impl From<ReadError> for FrameError {
    fn from(error: ReadError) -> Self {
        Self::Ended(match error {
            ReadError::ConnectionLost(error) => close::describe(&error),
            other => other.to_string(),
        })
    }
}
