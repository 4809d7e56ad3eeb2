//! One authenticated connection: reports come and go on streams of their own, heartbeats as datagrams. What is
//! bi-directional is in `streams`.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use quinn::{Connection, ConnectionError, ReadToEndError};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use crate::evidence::Report;

use super::{
    message::{self, Heartbeat, MAX_MESSAGE, MessageError, ReportMessage},
    streams::{Asking, Incoming, Taker},
};

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

impl Session {
    /// Sends `report` now and whenever it changes, from `site` with this `period`. Streams of frames go to `taker`.
    pub(super) fn start(
        connection: Connection,
        (site, period): (String, Duration),
        report: watch::Receiver<Report>,
        taker: Taker,
    ) -> Self {
        let announced = Arc::new(AtomicU64::new(0));
        // One: the next report waits in its stream until the peer's task has taken this one.
        let (sender, reports) = mpsc::channel(1);
        let (asking, requests) = mpsc::channel(1);
        let incoming = Incoming { connection: connection.clone(), requests: asking, taker };
        let outgoing = Outgoing { connection: connection.clone(), site, period, announced: Arc::clone(&announced) };
        Self {
            tasks: [
                tokio::spawn(outgoing.run(report)),
                tokio::spawn(receive_reports(connection.clone(), sender)),
                tokio::spawn(incoming.run()),
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
        let (sequence, report) = (self.sequence, self.announced.load(Ordering::Relaxed));
        let heartbeat = Heartbeat { sequence, report, clock: clock() };
        self.connection.send_datagram(message::encode_heartbeat(&heartbeat).into())
    }
}

/// This site's clock, milliseconds since 1970.
pub(super) fn clock() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
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
