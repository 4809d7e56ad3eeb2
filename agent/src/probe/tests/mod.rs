//! Probes against real servers on the loopback interface.

mod pages;
mod reload;
mod tls;

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinHandle,
};

use super::{Attempt, Prober};
use crate::config::{Check, HttpCheck, Probe};

/// How long anything that must happen may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// A server that gives every connection to a function. It stops when this is dropped.
struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream));
            }
        });
        Self { address, task }
    }

    /// Answers each request with the same pieces, and closes.
    async fn saying(pieces: &[&str]) -> Self {
        let pieces: Vec<String> = pieces.iter().map(|&piece| piece.to_owned()).collect();
        Self::start(move |mut stream| {
            let pieces = pieces.clone();
            async move {
                request(&mut stream).await;
                stream.set_nodelay(true).unwrap();
                for piece in pieces {
                    // The other end may have heard enough.
                    if stream.write_all(piece.as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await
    }
}

/// Reads a request's head.
async fn request(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// A socket that has its port to itself but does not listen, so that connections are refused; and the port's address.
fn refusing() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// A probe of a page that must have status 200 and hold `keyword`.
fn page(keyword: Option<&str>) -> HttpCheck {
    HttpCheck {
        tls: None,
        host: "www.shop.test".to_owned(),
        path: "/".to_owned(),
        status: vec![200],
        keyword: keyword.map(str::to_owned),
    }
}

fn probe(check: Check) -> Probe {
    Probe { check, interval: DEADLINE, timeout: DEADLINE, rise: 1, fall: 1 }
}

/// One attempt: `Ok` and `Err` hold its detail.
async fn attempt(probe: &Probe, backend: SocketAddr) -> Result<String, String> {
    let Attempt { ok, detail, .. } = Prober::new(probe).attempt(backend).await;
    if ok { Ok(detail) } else { Err(detail) }
}
