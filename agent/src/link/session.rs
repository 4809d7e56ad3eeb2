//! One authenticated connection: reports and requests come and go on streams of their own, heartbeats as datagrams.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use quinn::{Connection, ConnectionError, ReadToEndError, RecvStream};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};

use crate::evidence::Report;

use super::message::{
    self, Heartbeat, MAX_MESSAGE, MAX_REQUEST, MAX_RESPONSE, MessageError, ReportMessage, Request, Response,
};

/// A request that takes longer to come, or its response, has failed.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection and the three tasks that work its streams. Dropped without `Close`, it closes by itself.
pub(super) struct Session {
    pub(super) connection: Connection,
    reports: mpsc::Receiver<Result<ReportMessage, MessageError>>,
    requests: mpsc::Receiver<Result<Asking, MessageError>>,
    tasks: [JoinHandle<()>; 3],
    announced: Arc<AtomicU64>,
    sequence: u64,
}

/// What came over the connection.
pub(super) enum Heard {
    /// A datagram.
    Datagram(Bytes),
    /// A report, checked.
    Report(Result<ReportMessage, MessageError>),
    /// A request, checked.
    Request(Result<Asking, MessageError>),
    /// Nothing more will come.
    Closed(ConnectionError),
}

/// A request, and where its response goes.
pub(super) type Asking = (Request, oneshot::Sender<Response>);

impl Session {
    /// Sends `report` now and whenever it changes, from `site` with this `period`.
    pub(super) fn start(
        connection: Connection,
        site: String,
        period: Duration,
        report: watch::Receiver<Report>,
    ) -> Self {
        let announced = Arc::new(AtomicU64::new(0));
        // One: the next report waits in its stream until the peer's task has taken this one.
        let (sender, reports) = mpsc::channel(1);
        let (asking, requests) = mpsc::channel(1);
        let outgoing = Outgoing { connection: connection.clone(), site, period, announced: Arc::clone(&announced) };
        Self {
            tasks: [
                tokio::spawn(outgoing.run(report)),
                tokio::spawn(receive_reports(connection.clone(), sender)),
                tokio::spawn(receive_requests(connection.clone(), asking)),
            ],
            connection,
            reports,
            requests,
            announced,
            sequence: 0,
        }
    }

    /// The next thing that comes. Safe to cancel.
    pub(super) async fn hear(&mut self) -> Heard {
        tokio::select! {
            biased;
            Some(report) = self.reports.recv() => Heard::Report(report),
            Some(request) = self.requests.recv() => Heard::Request(request),
            datagram = self.connection.read_datagram() => match datagram {
                Ok(datagram) => Heard::Datagram(datagram),
                Err(error) => Heard::Closed(error),
            },
        }
    }

    /// A datagram that is already here.
    pub(super) fn waiting_datagram(&self) -> Option<Bytes> {
        let reading = pin!(self.connection.read_datagram());
        match reading.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(datagram)) => Some(datagram),
            _ => None,
        }
    }

    /// Sends a heartbeat; whether it went out is the peer's to say.
    pub(super) fn send_heartbeat(&mut self) -> Result<(), quinn::SendDatagramError> {
        self.sequence += 1;
        let heartbeat = Heartbeat { sequence: self.sequence, report: self.announced.load(Ordering::Relaxed) };
        self.connection.send_datagram(message::encode_heartbeat(&heartbeat).into())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

struct Outgoing {
    connection: Connection,
    site: String,
    period: Duration,
    announced: Arc<AtomicU64>,
}

impl Outgoing {
    async fn run(self, mut report: watch::Receiver<Report>) {
        for number in 1.. {
            let message = ReportMessage {
                site: self.site.clone(),
                number,
                period: self.period,
                report: report.borrow_and_update().clone(),
            };
            match message::encode_report(message) {
                Ok(bytes) => {
                    self.announced.store(number, Ordering::Relaxed);
                    if self.send(&bytes).await.is_err() {
                        return;
                    }
                }
                Err(error) => tracing::error!("this site's report cannot be sent: {error}"),
            }
            if report.changed().await.is_err() {
                return;
            }
        }
    }

    async fn send(&self, bytes: &[u8]) -> Result<(), quinn::WriteError> {
        let mut stream = self.connection.open_uni().await?;
        stream.write_all(bytes).await?;
        // Cannot fail: it is finished once.
        let _ = stream.finish();
        Ok(())
    }
}

async fn receive_reports(connection: Connection, reports: mpsc::Sender<Result<ReportMessage, MessageError>>) {
    while let Ok(mut stream) = connection.accept_uni().await {
        let report = match stream.read_to_end(MAX_MESSAGE).await {
            Ok(bytes) => message::decode_report(&bytes),
            Err(ReadToEndError::TooLong) => Err(MessageError::TooLong),
            // The connection ended, or the sender gave this one up.
            Err(ReadToEndError::Read(_)) => continue,
        };
        if reports.send(report).await.is_err() {
            return;
        }
    }
}

/// One request after the other: a peer's next one waits in its stream until this one is answered.
async fn receive_requests(connection: Connection, requests: mpsc::Sender<Result<Asking, MessageError>>) {
    while let Ok((mut send, receive)) = connection.accept_bi().await {
        let Ok(request) = timeout(REQUEST_TIMEOUT, read_request(receive)).await else { continue };
        let Some(request) = request else { continue };
        let (reply, response) = oneshot::channel();
        if requests.send(request.map(|request| (request, reply))).await.is_err() {
            return;
        }
        // Without a response the stream is reset, and the peer knows.
        if let Ok(response) = response.await
            && send.write_all(&message::encode_response(response)).await.is_ok()
        {
            let _ = send.finish();
        } else {
            let _ = send.reset(0_u32.into());
        }
    }
}

/// `None`: the sender gave it up.
async fn read_request(mut stream: RecvStream) -> Option<Result<Request, MessageError>> {
    match stream.read_to_end(MAX_REQUEST).await {
        Ok(bytes) => Some(message::decode_request(&bytes)),
        Err(ReadToEndError::TooLong) => Some(Err(MessageError::TooLong)),
        Err(ReadToEndError::Read(_)) => None,
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
