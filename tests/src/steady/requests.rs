//! Requests to the shop and its data tier: many over connections of their own, or many over one that is kept.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpStream, UdpSocket},
    runtime::{self, Runtime},
    task::JoinSet,
    time::{interval, sleep, timeout},
};

use super::{Progress, Steady};
use crate::{
    data::Reply,
    fetch::Browser,
    netns::Netns,
    plan::{DATA_PORT, Public, Site},
};

/// A request without an answer after this long has failed: TCP has sent it several times by then.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between an answer and the next request of a conversation.
const PAUSE: Duration = Duration::from_millis(25);

/// How a request travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// HTTP for `www`, a line for the others.
    Tcp,
    /// A datagram, sent once.
    Udp,
}

/// What is asked, and where. The answer is the name of the server that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// What is asked for.
    pub resource: Public,
    /// At which address.
    pub address: IpAddr,
    /// And how.
    pub transport: Transport,
}

impl Question {
    /// Every way to ask for a resource at a site: IPv4 and IPv6, TCP, and UDP where it is served over that.
    pub fn all(resource: Public, at: Site) -> Vec<Self> {
        let ways = |address| match resource {
            Public::Www => vec![Self::tcp(resource, address)],
            _ => vec![Self::tcp(resource, address), Self::udp(resource, address)],
        };
        at.public(resource).into_iter().flat_map(ways).collect()
    }

    /// Over TCP.
    pub fn tcp(resource: Public, address: IpAddr) -> Self {
        Self { resource, address, transport: Transport::Tcp }
    }

    /// Over UDP. Only `orders` and `accounts` are asked so.
    pub fn udp(resource: Public, address: IpAddr) -> Self {
        Self { resource, address, transport: Transport::Udp }
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} over {:?}", self.resource.name(), self.address, self.transport)
    }
}

/// What became of one request.
#[derive(Clone, Debug)]
pub struct Request {
    /// When it was sent.
    pub sent: Instant,
    /// The server that answered, or why there is none.
    pub answer: Result<String, String>,
}

/// What became of many requests over one connection, or from one UDP port.
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    /// How many were answered.
    pub answers: usize,
    /// By whom.
    pub servers: BTreeSet<String>,
    /// Why it ended before it was told to.
    pub broken: Option<String>,
}

/// Asks again and again from inside `client`, once every `period`, each time over a new connection.
///
/// # Errors
/// There is no such client.
pub fn requests(client: &Netns, question: Question, period: Duration) -> Result<Steady<Vec<Request>>> {
    asking(client, async move |progress| {
        let mut ticks = interval(period);
        let mut asked = JoinSet::new();
        while progress.goes_on() {
            ticks.tick().await;
            progress.sent_one();
            asked.spawn(async move {
                let sent = Instant::now();
                Request { sent, answer: once(question).await.map_err(|error| format!("{error:#}")) }
            });
        }
        let mut requests = asked.join_all().await;
        requests.sort_by_key(|request| request.sent);
        requests
    })
}

/// Asks again and again from inside `client`, over one connection, until it breaks.
///
/// # Errors
/// There is no such client.
pub fn conversation(client: &Netns, question: Question) -> Result<Steady<Conversation>> {
    asking(client, async move |progress| {
        let mut record = Conversation::default();
        record.broken = converse(question, progress, &mut record).await.err().map(|error| format!("{error:#}"));
        record
    })
}

/// Those without an answer.
pub fn failed(requests: &[Request]) -> Vec<&Request> {
    requests.iter().filter(|request| request.answer.is_err()).collect()
}

/// Who answered.
pub fn servers(requests: &[Request]) -> BTreeSet<String> {
    requests.iter().filter_map(|request| request.answer.clone().ok()).collect()
}

/// Holds that every request was answered, and by these servers only.
///
/// # Errors
/// One was not; the error has the first such.
pub fn all_answered(requests: &[Request], by: &[&str]) -> Result<()> {
    let is_good = |request: &&Request| request.answer.as_ref().is_ok_and(|server| by.contains(&server.as_str()));
    let bad: Vec<&Request> = requests.iter().filter(|request| !is_good(request)).collect();
    if let [first, ..] = bad[..] {
        let nth = requests.iter().take_while(is_good).count() + 1;
        bail!(
            "{} of {} requests were not answered by {by:?}, first the {nth}th: {:?}",
            bad.len(),
            requests.len(),
            first.answer
        );
    }
    Ok(())
}

/// The server that answers a single request from inside `client`.
///
/// # Errors
/// None does.
pub fn server(client: &Netns, question: Question) -> Result<String> {
    client.enter(|| runtime()?.block_on(once(question)))
}

fn asking<T: Send + 'static>(
    client: &Netns,
    work: impl AsyncFnOnce(&Progress) -> T + Send + 'static,
) -> Result<Steady<T>> {
    client.open()?;
    let client = client.clone();
    Ok(Steady::start(move |progress| client.enter(|| Ok(runtime()?.block_on(work(progress))))))
}

fn runtime() -> Result<Runtime> {
    Ok(runtime::Builder::new_current_thread().enable_all().build()?)
}

async fn converse(question: Question, progress: &Progress, record: &mut Conversation) -> Result<()> {
    let mut line = patiently(Line::open(question)).await?;
    while progress.goes_on() {
        progress.sent_one();
        record.servers.insert(patiently(line.ask(question.resource)).await?);
        record.answers += 1;
        sleep(PAUSE).await;
    }
    Ok(())
}

async fn once(question: Question) -> Result<String> {
    patiently(async { Line::open(question).await?.ask(question.resource).await }).await
}

async fn patiently<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(PATIENCE, work).await.map_err(|_| anyhow!("no answer within {PATIENCE:?}")).flatten()
}

/// A connection.
enum Line {
    Page(Browser),
    Rows(BufReader<TcpStream>),
    Datagrams(UdpSocket),
}

impl Line {
    async fn open(Question { resource, address, transport }: Question) -> Result<Self> {
        let data = SocketAddr::new(address, DATA_PORT);
        Ok(match (resource, transport) {
            (Public::Orders | Public::Accounts, Transport::Tcp) => {
                Self::Rows(BufReader::new(TcpStream::connect(data).await?))
            }
            (Public::Orders | Public::Accounts, Transport::Udp) => {
                let any: IpAddr =
                    if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
                let socket = UdpSocket::bind((any, 0)).await?;
                socket.connect(data).await?;
                Self::Datagrams(socket)
            }
            (Public::Www, Transport::Tcp) => Self::Page(Browser::connect(address).await?),
            _ => bail!("{} is not served over {transport:?}", resource.name()),
        })
    }

    /// The name of the server that answers.
    async fn ask(&mut self, resource: Public) -> Result<String> {
        let mut reply = String::new();
        match self {
            Self::Page(browser) => {
                let page = browser.get("www.shop.test", "/health").await?;
                return Ok(page.after("page by ").with_context(|| format!("{page:?}"))?.to_owned());
            }
            Self::Rows(stream) => {
                stream.write_all(format!("{}\n", resource.name()).as_bytes()).await?;
                stream.read_line(&mut reply).await?;
            }
            Self::Datagrams(socket) => {
                socket.send(resource.name().as_bytes()).await?;
                let mut buffer = vec![0; 2048];
                let length = socket.recv(&mut buffer).await?;
                reply = String::from_utf8(buffer[..length].to_vec())?;
            }
        }
        match serde_json::from_str(&reply).with_context(|| format!("the reply was {reply:?}"))? {
            Reply::Rows { server, .. } => Ok(server),
            Reply::Error(error) => bail!(error),
        }
    }
}
