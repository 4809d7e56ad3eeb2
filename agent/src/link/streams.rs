//! Bi-directional streams: requests with their responses, and streams of frames. The first bytes of each say which it is.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use quinn::{Connection, ReadExactError, ReadToEndError, RecvStream, SendStream};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};

use super::{
    Opened,
    frames::{Frames, Topic},
    message::{self, MAX_REQUEST, MAX_RESPONSE, MessageError, OPENING, Purpose, Request, Response},
    status::Counters,
};

/// A request that takes longer to come, or its response, has failed.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// A request, and where its response goes.
pub(super) type Asking = (Request, oneshot::Sender<Response>);

type Stream = (SendStream, RecvStream);

/// Who takes the streams of frames that a peer opens.
pub(super) struct Taker {
    pub(super) peer: String,
    pub(super) opened: mpsc::Sender<Opened>,
    pub(super) counters: Arc<Counters>,
}

/// Accepts a peer's streams until the connection ends. None waits for another: as many as the peer may have open
/// (`transport`) are read, answered or handed over at the same time.
pub(super) struct Incoming {
    pub(super) connection: Connection,
    pub(super) requests: mpsc::Sender<Result<Asking, MessageError>>,
    pub(super) taker: Taker,
}

impl Incoming {
    pub(super) async fn run(self) {
        let mut begun = JoinSet::new();
        // Told when another stream of frames takes over.
        let mut current: BTreeMap<Topic, oneshot::Sender<()>> = BTreeMap::new();
        loop {
            tokio::select! {
                accepted = self.connection.accept_bi() => match accepted {
                    Ok(stream) => {
                        begun.spawn(begin(stream, self.requests.clone()));
                    }
                    Err(_) => return,
                },
                Some(ended) = begun.join_next() => if let Ok(Some((topic, stream))) = ended {
                    let (replace, replaced) = oneshot::channel();
                    if let Some(older) = current.insert(topic, replace) {
                        let _ = older.send(());
                    }
                    self.taker.take(topic, stream, replaced);
                },
            }
        }
    }
}

impl Taker {
    /// Without somebody to take it at once the stream ends: a connection never waits for one of its streams.
    fn take(&self, topic: Topic, stream: Stream, replaced: oneshot::Receiver<()>) {
        let frames = Frames::new(stream, Some(replaced), Arc::clone(&self.counters));
        let _ = self.opened.try_send(Opened { peer: self.peer.clone(), topic, frames });
    }
}

/// Finds out what a stream is for, and sees a request through. A stream of frames is given back.
async fn begin(
    (send, mut receive): Stream,
    requests: mpsc::Sender<Result<Asking, MessageError>>,
) -> Option<(Topic, Stream)> {
    let request = match timeout(REQUEST_TIMEOUT, read_beginning(&mut receive)).await.ok()?? {
        Ok(Beginning::Frames(topic)) => return Some((topic, (send, receive))),
        Ok(Beginning::Request(request)) => Ok(request),
        Err(error) => Err(error),
    };
    answer(send, request, &requests).await;
    None
}

enum Beginning {
    Request(Request),
    Frames(Topic),
}

/// `None`: the sender gave it up.
async fn read_beginning(stream: &mut RecvStream) -> Option<Result<Beginning, MessageError>> {
    let mut opening = [0; OPENING];
    let length = match stream.read_exact(&mut opening).await {
        Ok(()) => OPENING,
        Err(ReadExactError::FinishedEarly(length)) => length,
        Err(ReadExactError::ReadError(_)) => return None,
    };
    match message::decode_opening(&opening[..length]) {
        Ok(Purpose::Changes) => return Some(Ok(Beginning::Frames(Topic::Changes))),
        Ok(Purpose::Comparison) => return Some(Ok(Beginning::Frames(Topic::Comparison))),
        Ok(Purpose::Request) => {}
        Err(error) => return Some(Err(error)),
    }
    match stream.read_to_end(MAX_REQUEST - OPENING).await {
        Ok(rest) => Some(message::decode_request(&[&opening[..], &rest].concat()).map(Beginning::Request)),
        Err(ReadToEndError::TooLong) => Some(Err(MessageError::TooLong)),
        Err(ReadToEndError::Read(_)) => None,
    }
}

/// Without a response the stream is reset, and the peer knows.
async fn answer(
    mut send: SendStream,
    request: Result<Request, MessageError>,
    requests: &mpsc::Sender<Result<Asking, MessageError>>,
) {
    let (reply, response) = oneshot::channel();
    if requests.send(request.map(|request| (request, reply))).await.is_ok()
        && let Ok(response) = response.await
        && send.write_all(&message::encode_response(response)).await.is_ok()
    {
        let _ = send.finish();
    } else {
        let _ = send.reset(0_u32.into());
    }
}

/// Asks the peer on this connection. The error says what happened; whether the peer did it is not known then.
pub(super) async fn ask(connection: Connection, request: Request) -> Result<Response, String> {
    let bytes = message::encode_request(&request).map_err(|error| error.to_string())?;
    let exchange = async {
        let (mut send, mut receive) = connection.open_bi().await.map_err(|error| error.to_string())?;
        send.write_all(&bytes).await.map_err(|error| error.to_string())?;
        let _ = send.finish();
        let response = receive.read_to_end(MAX_RESPONSE).await.map_err(|error| error.to_string())?;
        message::decode_response(&response).map_err(|error| error.to_string())
    };
    timeout(REQUEST_TIMEOUT, exchange).await.unwrap_or_else(|_| Err(format!("no response within {REQUEST_TIMEOUT:?}")))
}
