//! Pages, fetched as a browser would.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result};
use axum::body::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, StatusCode, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use crate::plan::WEB_PORT;

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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let fetched = runtime.block_on(async { timeout(patience, get(address, host, path)).await });
    fetched
        .map_err(|_| anyhow::anyhow!("no page within {patience:?}"))
        .flatten()
        .with_context(|| format!("from {address}"))
}

async fn get(address: IpAddr, host: &str, path: &str) -> Result<Page> {
    Browser::connect(address).await?.get(host, path).await
}

/// A connection to a web server. It stays as long as the server and this value do.
pub(crate) struct Browser(http1::SendRequest<Empty<Bytes>>);

impl Browser {
    pub(crate) async fn connect(address: IpAddr) -> Result<Self> {
        let stream = TcpStream::connect(SocketAddr::new(address, WEB_PORT)).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    pub(crate) async fn get(&mut self, host: &str, path: &str) -> Result<Page> {
        self.0.ready().await?;
        let request = Request::get(path).header("host", host).body(Empty::new())?;
        let response = self.0.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok(Page { status, body: String::from_utf8(body.to_vec())? })
    }
}
