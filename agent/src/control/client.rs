//! The command line's side of the control socket.

use std::path::{Path, PathBuf};

use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request,
    body::{Bytes, Incoming},
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, task::AbortHandle};

use crate::replication::{self, Comparing, Comparison};

use super::api::{
    Drain, Drained, Explain, ExplainPacket, ExplainedPacket, Explanation, Fenced, InstanceRow, Refusal, SetOverride,
    Status, Swap, Swapped,
};

/// Why the agent gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens, or this user may not ask.
    #[error(
        "no agent answers on {path}: {source}; is `siteswap run` running, and is this its control socket ([agent] control)?"
    )]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The conversation broke off.
    #[error("the agent on {path} broke off: {reason}")]
    Broken {
        /// The socket.
        path: PathBuf,
        /// How.
        reason: String,
    },
    /// The agent refused, and says why.
    #[error("{0}")]
    Refused(String),
}

/// A control socket.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    /// The agent whose control socket is at `path`.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// The whole state.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.ask(Method::GET, "/v1/status", None::<()>).await
    }

    /// How the database stands.
    pub async fn database(&self) -> Result<replication::Status, ClientError> {
        self.ask(Method::GET, "/v1/database", None::<()>).await
    }

    /// Compares the database's tables with a peer's. `told` hears everything that is said until the end.
    pub async fn compare(&self, order: &Comparison, mut told: impl FnMut(Comparing)) -> Result<(), ClientError> {
        let mut answer = self.send(Method::POST, "/v1/database/compare", Some(order)).await?;
        let mut partial = Vec::new();
        while let Some(frame) = answer.body.frame().await {
            let frame = frame.map_err(|error| self.broken(error.to_string()))?;
            partial.extend_from_slice(frame.data_ref().map_or(&[][..], |data| &data[..]));
            while let Some(end) = partial.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = partial.drain(..=end).collect();
                told(serde_json::from_slice(&line).map_err(|error| self.broken(error.to_string()))?);
            }
        }
        Ok(())
    }

    /// Lets no more be written to the database's tables at any site. To be repeated until what was written is applied
    /// everywhere.
    pub async fn fence(&self) -> Result<Fenced, ClientError> {
        self.ask(Method::POST, "/v1/database/fence", None::<()>).await
    }

    /// Sets an override or takes it back.
    pub async fn set(&self, order: &SetOverride) -> Result<(), ClientError> {
        self.ask(Method::PUT, "/v1/override", Some(order)).await
    }

    /// Every resource at every site.
    pub async fn instances(&self) -> Result<Vec<InstanceRow>, ClientError> {
        self.ask(Method::GET, "/v1/instances", None::<()>).await
    }

    /// Makes a site the holder of a resource.
    pub async fn swap(&self, order: &Swap) -> Result<Swapped, ClientError> {
        self.ask(Method::POST, "/v1/swap", Some(order)).await
    }

    /// Drains a site or takes that back.
    pub async fn drain(&self, order: &Drain) -> Result<Drained, ClientError> {
        self.ask(Method::POST, "/v1/drain", Some(order)).await
    }

    /// Explains an answer.
    pub async fn explain(&self, question: &Explain) -> Result<Explanation, ClientError> {
        self.ask(Method::POST, "/v1/explain", Some(question)).await
    }

    /// Explains what would become of a packet.
    pub async fn explain_packet(&self, question: &ExplainPacket) -> Result<ExplainedPacket, ClientError> {
        self.ask(Method::POST, "/v1/explain-packet", Some(question)).await
    }

    /// Has the agent read its configuration again.
    pub async fn reload(&self) -> Result<(), ClientError> {
        self.ask(Method::POST, "/v1/reload", None::<()>).await
    }

    async fn ask<A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<impl Serialize>,
    ) -> Result<A, ClientError> {
        let bytes = self.send(method, path, body).await?.whole().await.map_err(|reason| self.broken(reason))?;
        serde_json::from_slice(&bytes).map_err(|error| self.broken(error.to_string()))
    }

    /// The answer to a request that the agent has not refused.
    async fn send(&self, method: Method, path: &str, body: Option<impl Serialize>) -> Result<Answer, ClientError> {
        let stream = UnixStream::connect(&self.path)
            .await
            .map_err(|source| ClientError::Connect { path: self.path.clone(), source })?;
        let (good, answer) = exchange(stream, method, path, body).await.map_err(|reason| self.broken(reason))?;
        if good {
            return Ok(answer);
        }
        let bytes = answer.whole().await.map_err(|reason| self.broken(reason))?;
        let refusal: Refusal = serde_json::from_slice(&bytes).map_err(|error| self.broken(error.to_string()))?;
        Err(ClientError::Refused(refusal.error))
    }

    fn broken(&self, reason: String) -> ClientError {
        ClientError::Broken { path: self.path.clone(), reason }
    }
}

/// An answer's body, with the connection that it comes over.
struct Answer {
    body: Incoming,
    connection: AbortHandle,
}

impl Answer {
    async fn whole(mut self) -> Result<Bytes, String> {
        Ok((&mut self.body).collect().await.map_err(|error| error.to_string())?.to_bytes())
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Sends one request: whether it succeeded, and the answer.
async fn exchange(
    stream: UnixStream,
    method: Method,
    path: &str,
    body: Option<impl Serialize>,
) -> Result<(bool, Answer), String> {
    let say = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(say)?;
    let connection = tokio::spawn(connection).abort_handle();
    let json = body.map(|body| serde_json::to_vec(&body)).transpose().map_err(|e| e.to_string())?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "siteswap")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(json.unwrap_or_default())))
        .map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(say)?;
    Ok((response.status().is_success(), Answer { body: response.into_body(), connection }))
}
