//! One try of one backend.

use std::{
    error::Error,
    io,
    net::SocketAddr,
    pin::pin,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, Response, Uri,
    body::Incoming,
    client::conn::http1,
    header::{ACCEPT, CONNECTION, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time,
};
use tokio_rustls::TlsConnector;

use super::{
    search::Search,
    tls::{self, Roots},
};
use crate::config::{Check, HttpCheck, Probe};

/// Bytes of a page that are searched for the keyword.
const MAX_PAGE: usize = 1 << 20;

/// Bytes of a response's head, at most.
const MAX_HEAD: usize = 64 << 10;

/// Tries backends as one probe says.
pub struct Prober {
    check: Check,
    timeout: Duration,
    /// For HTTPS: the client, or why there is none.
    tls: Option<Result<TlsConnector, String>>,
}

/// What a try found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The backend is as expected.
    pub ok: bool,
    /// What was found, for people; not a sentence.
    pub detail: String,
    /// How long it took.
    pub latency: Duration,
    /// When it ended.
    pub at: Instant,
}

impl Prober {
    /// Reads the roots that the probe's certificates are judged by. If that fails, every attempt does.
    pub fn new(probe: &Probe) -> Self {
        Self::with_roots(probe, read_roots(probe).as_ref())
    }

    pub(super) fn with_roots(probe: &Probe, roots: Option<&Roots>) -> Self {
        let tls = match &probe.check {
            Check::Http(HttpCheck { tls: Some(tls), .. }) => Some(tls::client(tls, roots).map(TlsConnector::from)),
            _ => None,
        };
        Self { check: probe.check.clone(), timeout: probe.timeout, tls }
    }

    /// Tries `backend` once, over a connection of its own, within the probe's timeout.
    pub async fn attempt(&self, backend: SocketAddr) -> Attempt {
        let start = Instant::now();
        let result = time::timeout(self.timeout, self.try_once(backend)).await;
        let result = result.unwrap_or_else(|_| Err(format!("timed out after {:?}", self.timeout)));
        let at = Instant::now();
        let ok = result.is_ok();
        let (Ok(detail) | Err(detail)) = result;
        Attempt { ok, detail, latency: at - start, at }
    }

    async fn try_once(&self, backend: SocketAddr) -> Result<String, String> {
        // Before connecting: a try that cannot succeed need not disturb the backend.
        let tls = self.tls.as_ref().map(Result::as_ref).transpose()?;
        let stream = TcpStream::connect(backend).await.map_err(|error| io_text(&error))?;
        let Check::Http(check) = &self.check else {
            return Ok("connected".to_owned());
        };
        let _ = stream.set_nodelay(true);
        let Some(tls) = tls else {
            return page(stream, check).await;
        };
        let name = server_name(&check.host)?;
        let stream = tls.connect(name, stream).await;
        let stream = stream.map_err(|error| format!("TLS: {}", io_text(&error)))?;
        page(stream, check).await
    }
}

/// What a probe's PEM file holds, if it has one.
pub(super) fn read_roots(probe: &Probe) -> Option<Roots> {
    match &probe.check {
        Check::Http(check) => check.tls.as_ref().and_then(tls::read_roots),
        Check::Tcp => None,
    }
}

/// The name a certificate must be for: the host without its port.
fn server_name(host: &str) -> Result<ServerName<'static>, String> {
    let authority: Result<hyper::http::uri::Authority, _> = host.parse();
    let wrong = || format!("{host:?} cannot be in a certificate");
    let authority = authority.map_err(|_| wrong())?;
    let name = authority.host().trim_matches(['[', ']']);
    ServerName::try_from(name.to_owned()).map_err(|_| wrong())
}

/// Fetches the page over `stream` and compares it with what `check` expects.
async fn page<S>(stream: S, check: &HttpCheck) -> Result<String, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| http_text(&error))?;
    let mut exchange = pin!(async {
        let request = request(check)?;
        let response = sender.send_request(request).await;
        judge(response.map_err(|error| http_text(&error))?, check).await
    });
    // The connection moves the bytes. It may end first, with the rest of the page still to be looked at.
    tokio::select! {
        result = &mut exchange => return result,
        _ = connection => {}
    }
    exchange.await
}

fn request(check: &HttpCheck) -> Result<Request<Empty<Bytes>>, String> {
    let path: Uri = check.path.parse().map_err(|_| format!("{:?} is no path", check.path))?;
    Request::get(path)
        .header(HOST, &check.host)
        .header(USER_AGENT, concat!("siteswap/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "*/*")
        .header(CONNECTION, "close")
        .body(Empty::new())
        .map_err(|error| error.to_string())
}

async fn judge(response: Response<Incoming>, check: &HttpCheck) -> Result<String, String> {
    let status = response.status().as_u16();
    if !check.status.contains(&status) {
        let expected: Vec<String> = check.status.iter().map(u16::to_string).collect();
        return Err(format!("status {status}, expected {}", expected.join(" or ")));
    }
    let Some(keyword) = &check.keyword else {
        return Ok(format!("status {status}"));
    };
    find(keyword, response.into_body()).await?;
    Ok(format!("status {status}, keyword {keyword:?}"))
}

async fn find(keyword: &str, mut page: Incoming) -> Result<(), String> {
    let mut search = Search::new(keyword);
    while let Some(frame) = page.frame().await {
        let frame = frame.map_err(|error| {
            let read = search.seen();
            format!("the page broke off after {read} bytes: {}", http_text(&error))
        })?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        if search.feed(&data[..data.len().min(MAX_PAGE - search.seen())]) {
            return Ok(());
        }
        if search.seen() == MAX_PAGE {
            return Err(format!("keyword {keyword:?} not in the first {MAX_PAGE} bytes of the page"));
        }
    }
    Err(format!("keyword {keyword:?} not in the page ({} bytes)", search.seen()))
}

/// `error` without its number and capital letter.
fn io_text(error: &io::Error) -> String {
    let text = error.to_string();
    if error.raw_os_error().is_none() {
        return text;
    }
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// The cause, which says more than what hyper was doing.
fn http_text(error: &hyper::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    match cause.downcast_ref::<io::Error>() {
        Some(error) => io_text(error),
        None => cause.to_string(),
    }
}
