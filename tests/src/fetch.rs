//! Pages, fetched as a browser would.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result};
use axum::body::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use crate::plan::WEB_PORT;

/// What a browser says of a form's fields.
const FORM: &str = "application/x-www-form-urlencoded";

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// HTTP status.
    pub status: StatusCode,
    /// Body.
    pub body: String,
}

impl Page {
    /// The rest of the body's line that starts with `words`.
    pub fn after(&self, words: &str) -> Option<&str> {
        self.body.lines().find_map(|line| line.strip_prefix("<p>")?.strip_prefix(words))
    }
}

/// Fetches `http://host/path` from the server at `address`, port 80, in the thread's own namespace.
///
/// # Errors
/// No page within `patience`.
pub fn fetch(address: IpAddr, host: &str, path: &str, patience: Duration) -> Result<Page> {
    run(address, patience, async { Browser::connect(address).await?.get(host, path).await })
}

/// Sends a form, `name=value` pairs joined by `&`, to the same place.
///
/// # Errors
/// No page within `patience`.
pub fn post(address: IpAddr, host: &str, path: &str, form: &str, patience: Duration) -> Result<Page> {
    run(address, patience, async { Browser::connect(address).await?.post(host, path, form).await })
}

fn run(address: IpAddr, patience: Duration, work: impl Future<Output = Result<Page>>) -> Result<Page> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let page = runtime.block_on(async { timeout(patience, work).await });
    page.map_err(|_| anyhow::anyhow!("no page within {patience:?}"))
        .flatten()
        .with_context(|| format!("from {address}"))
}

/// A connection to a web server. It stays as long as the server and this value do.
pub(crate) struct Browser(http1::SendRequest<Full<Bytes>>);

impl Browser {
    pub(crate) async fn connect(address: IpAddr) -> Result<Self> {
        let stream = TcpStream::connect(SocketAddr::new(address, WEB_PORT)).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    pub(crate) async fn get(&mut self, host: &str, path: &str) -> Result<Page> {
        self.send(Request::get(path).header("host", host).body(Full::default())?).await
    }

    async fn post(&mut self, host: &str, path: &str, form: &str) -> Result<Page> {
        let request = Request::post(path).header("host", host).header("content-type", FORM);
        self.send(request.body(Full::from(form.to_owned()))?).await
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Page> {
        self.0.ready().await?;
        let response = self.0.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok(Page { status, body: String::from_utf8(body.to_vec())? })
    }
}
