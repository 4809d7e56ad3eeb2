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
    let stream = TcpStream::connect(SocketAddr::new(address, 80)).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get(path).header("host", host).header("connection", "close").body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    Ok(Page { status, body: String::from_utf8(body.to_vec())? })
}
