//! The data tier: a small service in front of a site's SQLite file.
//!
//! A request is one line, the name of a table, over TCP or in a UDP datagram; the answer is one line of JSON, a
//! [`Reply`]. Every request reads the file: when it is gone, the answer says so.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream, UdpSocket},
    task::{JoinSet, spawn_blocking},
};

/// A request longer than this is not read further.
const MAX_REQUEST: usize = 64;

/// What the data tier answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// The table's rows.
    Rows {
        /// The database server that answered.
        server: String,
        /// Where the request came from, as that server sees it.
        client: IpAddr,
        /// One per row, columns separated by a space.
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
            let _ = socket.send_to(self.answer(request, client.ip()).await.as_bytes(), client).await;
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
            if replies.write_all(self.answer(request, client).await.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    /// The reply's line to a request's line.
    async fn answer(self: &Arc<Self>, request: String, client: IpAddr) -> String {
        let data = self.clone();
        let read = spawn_blocking(move || rows(&data.file, request.trim())).await;
        let reply = match read.unwrap_or_else(|error| Err(error.into())) {
            Ok(rows) => Reply::Rows { server: self.name.clone(), client, rows },
            Err(error) => {
                eprintln!("{error:#}");
                Reply::Error(error.to_string())
            }
        };
        serde_json::to_string(&reply).unwrap_or_default() + "\n"
    }
}

/// The newest rows of a table.
fn rows(file: &Path, table: &str) -> Result<Vec<String>> {
    let query = match table {
        "orders" => "SELECT id || ' ' || item || ' ' || quantity FROM orders ORDER BY id DESC LIMIT 10",
        "accounts" => "SELECT id || ' ' || owner || ' ' || balance FROM accounts ORDER BY id DESC LIMIT 10",
        _ => anyhow::bail!("the tables are orders and accounts, not {table:?}"),
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let database =
        Connection::open_with_flags(file, flags).with_context(|| format!("{} cannot be opened", file.display()))?;
    let mut statement = database.prepare(query)?;
    let rows = statement.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
