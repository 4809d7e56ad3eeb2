//! The data tier: a small service in front of a site's SQLite file.
//!
//! A request is one line over TCP or in a UDP datagram: `orders`, `accounts`, and over TCP alone, because a datagram may
//! come twice, `order ARTICLE QUANTITY`, `change KEY QUANTITY` and `cancel KEY`. The answer is one line of JSON, a
//! [`Reply`]. Every request opens the file: when it is gone, the answer says so.

mod request;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream, UdpSocket},
    task::{JoinSet, spawn_blocking},
};

use self::request::Request;

/// A request longer than this is not read further.
const MAX_REQUEST: usize = 64;

/// What the data tier answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// What was asked for.
    Rows {
        /// The database server that answered.
        server: String,
        /// Where the request came from, as that server sees it.
        client: IpAddr,
        /// One per row read, columns separated by a space; or the key of the order that was made, changed or cancelled.
        rows: Vec<String>,
    },
    /// Why there are none.
    Error(String),
}

/// The service of one site.
#[derive(Clone, Debug)]
pub struct Data {
    /// The name it answers with.
    pub name: String,
    /// The site it is at.
    pub site: String,
    /// The database.
    pub file: PathBuf,
}

impl Data {
    /// Serves on every address, TCP and UDP, until the process ends.
    ///
    /// # Errors
    /// An address cannot be listened on.
    pub async fn serve(self, addresses: &[SocketAddr]) -> Result<()> {
        let data = Arc::new(self);
        let mut tasks = JoinSet::new();
        for &address in addresses {
            let udp = UdpSocket::bind(address).await.with_context(|| format!("UDP {address}"))?;
            let tcp = TcpListener::bind(address).await.with_context(|| format!("TCP {address}"))?;
            tasks.spawn(data.clone().datagrams(udp));
            tasks.spawn(data.clone().connections(tcp));
        }
        println!("{}: serving {} on {addresses:?}", data.name, data.file.display());
        tasks.join_all().await;
        Ok(())
    }

    async fn datagrams(self: Arc<Self>, socket: UdpSocket) {
        let mut buffer = [0; MAX_REQUEST];
        loop {
            // Errors here are about earlier datagrams (ICMP), not about the socket.
            let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
                continue;
            };
            let request = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let _ = socket.send_to(self.answer(request, client.ip(), false).await.as_bytes(), client).await;
        }
    }

    async fn connections(self: Arc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, client)) => drop(tokio::spawn(self.clone().converse(stream, client.ip()))),
                Err(error) => eprintln!("accept: {error}"),
            }
        }
    }

    async fn converse(self: Arc<Self>, mut stream: TcpStream, client: IpAddr) {
        let (requests, mut replies) = stream.split();
        let mut requests = BufReader::new(requests);
        loop {
            let mut request = String::new();
            match (&mut requests).take(MAX_REQUEST as u64).read_line(&mut request).await {
                Ok(length) if length > 0 => {}
                _ => return,
            }
            if replies.write_all(self.answer(request, client, true).await.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    /// The reply's line to a request's line.
    async fn answer(self: &Arc<Self>, line: String, client: IpAddr, may_write: bool) -> String {
        let data = self.clone();
        let done = spawn_blocking(move || {
            let request = Request::read(&line)?;
            ensure!(may_write || !request.writes(), "orders are made over TCP: a datagram may come twice");
            request.execute(&data.file, &data.site)
        });
        let reply = match done.await.unwrap_or_else(|error| Err(error.into())) {
            Ok(rows) => Reply::Rows { server: self.name.clone(), client, rows },
            Err(error) => {
                eprintln!("{error:#}");
                Reply::Error(format!("{error:#}"))
            }
        };
        serde_json::to_string(&reply).unwrap_or_default() + "\n"
    }
}
