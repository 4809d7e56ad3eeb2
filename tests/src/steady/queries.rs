//! A steady stream of queries to a name server: how a lost one is noticed.

use std::{
    net::{IpAddr, UdpSocket},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use hickory_proto::{op::Message, rr::RecordType};

use super::{Progress, Steady};
use crate::{dns, netns::Netns};

/// After the last query, answers are awaited for this long.
const PATIENCE: Duration = Duration::from_secs(2);

/// What became of one query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// When it was sent.
    pub sent: Instant,
    /// Its answer: when it came, and the addresses in it. `None`: lost.
    pub answer: Option<(Instant, Vec<IpAddr>)>,
}

/// Asks `server` for `name` again and again from inside `client`, once every `period`.
///
/// # Errors
/// The server cannot be reached, or `name` is no domain name.
pub fn queries(
    client: &Netns,
    server: IpAddr,
    name: &str,
    kind: RecordType,
    period: Duration,
) -> Result<Steady<Vec<Asked>>> {
    let query = dns::query(name, kind)?;
    let socket = client.enter(|| dns::connected(server))?;
    Ok(Steady::start(move |progress| stream(&socket, query, period, progress)))
}

fn stream(socket: &UdpSocket, mut query: Message, period: Duration, progress: &Progress) -> Result<Vec<Asked>> {
    let (finished, ended) = mpsc::channel();
    let mut asked = Vec::new();
    let answers = thread::scope(|scope| -> Result<_> {
        let listener = scope.spawn(move || listen(socket, &ended));
        let mut next = Instant::now();
        // The message's identifier is the query's number: 65536 are enough for any test.
        while progress.goes_on() && asked.len() <= usize::from(u16::MAX) {
            query.metadata.id = u16::try_from(asked.len())?;
            // A refusal reported here (ICMP) belongs to an earlier query, which then has no answer.
            let _ = socket.send(&query.to_vec()?);
            asked.push(Asked { sent: Instant::now(), answer: None });
            progress.sent_one();
            next += period;
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        finished.send(asked.len())?;
        listener.join().map_err(|_| anyhow!("the listening thread panicked"))
    })?;
    for (id, at, addresses) in answers {
        let one = asked.get_mut(usize::from(id)).context("an answer to a query that was never sent")?;
        one.answer.get_or_insert((at, addresses));
    }
    Ok(asked)
}

/// Collects answers until all have come or nobody can hope any more.
fn listen(socket: &UdpSocket, ended: &mpsc::Receiver<usize>) -> Vec<(u16, Instant, Vec<IpAddr>)> {
    let mut answers = Vec::new();
    let mut buffer = [0; 4096];
    let mut end = None;
    let _ = socket.set_read_timeout(Some(Duration::from_millis(20)));
    loop {
        if let Ok(length) = socket.recv(&mut buffer)
            && let Ok(answer) = Message::from_vec(&buffer[..length])
        {
            answers.push((answer.metadata.id, Instant::now(), dns::addresses(&answer)));
        }
        end = end.or_else(|| Some((ended.try_recv().ok()?, Instant::now() + PATIENCE)));
        if end.is_some_and(|(sent, deadline)| answers.len() >= sent || Instant::now() > deadline) {
            return answers;
        }
    }
}
