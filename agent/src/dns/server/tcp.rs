//! TCP (RFC 7766): queries of a connection are answered in order, each reply in one write.

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
    time::{Instant, sleep, timeout},
};

use super::{Context, PAUSE, Transport, bump};

/// A DNS header; a shorter message cannot be a query.
const HEADER: usize = 12;

/// Connections that are open, over all addresses.
#[derive(Debug, Default)]
pub(super) struct Connections(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    next: u64,
    open: BTreeMap<u64, Open>,
}

#[derive(Debug)]
struct Open {
    /// When the last complete query came, or the connection was made.
    active: Instant,
    task: AbortHandle,
}

/// Accepts until the task is aborted.
pub(super) async fn serve(listener: TcpListener, context: Arc<Context>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                bump(&context.counters.connections);
                open(stream, &context);
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a TCP connection");
                sleep(PAUSE).await;
            }
        }
    }
}

/// Starts a connection's task; past the limit the one idle for longest makes room.
fn open(stream: TcpStream, context: &Arc<Context>) {
    let mut table = context.connections.lock();
    while table.open.len() >= context.limits.connections.max(1) {
        let idle = table.open.iter().min_by_key(|(_, open)| open.active);
        let Some(id) = idle.map(|(id, _)| *id) else {
            break;
        };
        if let Some(open) = table.open.remove(&id) {
            open.task.abort();
            bump(&context.counters.crowded_out);
        }
    }
    let id = table.next;
    table.next += 1;
    // The task waits for this lock before it removes itself.
    let task = tokio::spawn(converse(stream, id, context.clone())).abort_handle();
    let active = Instant::now();
    table.open.insert(id, Open { active, task });
}

async fn converse(stream: TcpStream, id: u64, context: Arc<Context>) {
    if let Err(error) = answer_all(stream, id, &context).await {
        if error.kind() == io::ErrorKind::TimedOut {
            bump(&context.counters.idle_closed);
        }
        tracing::debug!(%error, "TCP connection closed");
    }
    context.connections.lock().open.remove(&id);
}

/// Returns when the client closes, or sends what cannot be a query.
async fn answer_all(stream: TcpStream, id: u64, context: &Context) -> io::Result<()> {
    let idle = context.limits.idle;
    // Small replies go out at once.
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    let mut message = Vec::new();
    loop {
        if !within(idle, read_message(&mut stream, &mut message)).await? {
            return Ok(());
        }
        context.connections.touch(id);
        let Some(reply) = context.answer(&message, Transport::Tcp) else {
            return Ok(());
        };
        // `respond` keeps replies within what a length field can say.
        let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes()[..], &reply].concat();
        within(idle, stream.get_mut().write_all(&framed)).await?;
    }
}

/// Reads one message. `false`: the client has closed, or the length is too short for a header.
async fn read_message(stream: &mut BufReader<TcpStream>, message: &mut Vec<u8>) -> io::Result<bool> {
    let length = match stream.read_u16().await {
        Ok(length) => usize::from(length),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        Err(error) => return Err(error),
    };
    if length < HEADER {
        return Ok(false);
    }
    message.resize(length, 0);
    stream.read_exact(message).await?;
    Ok(true)
}

async fn within<T>(limit: Duration, step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(limit, step).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

impl Connections {
    /// Nothing is left half-changed by a panic while it is held: a poisoned lock is as good as any.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self, id: u64) {
        if let Some(open) = self.lock().open.get_mut(&id) {
            open.active = Instant::now();
        }
    }

    pub(super) fn close_all(&self) {
        for open in self.lock().open.values() {
            open.task.abort();
        }
    }
}
