//! The application tier: a stateless web server whose page reads the data tier.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use axum::{Router, extract::State, response::Html, routing::get};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};

use crate::data::Reply;

/// The page is rendered without the database after this long.
const PATIENCE: Duration = Duration::from_millis(300);

/// One web server.
#[derive(Clone, Debug)]
pub struct Shop {
    /// The site it is at.
    pub site: String,
    /// Its own name.
    pub name: String,
    /// The data tier for orders.
    pub orders: SocketAddr,
    /// The data tier for accounts.
    pub accounts: SocketAddr,
}

impl Shop {
    /// Serves on every address until the process ends.
    ///
    /// # Errors
    /// An address cannot be listened on.
    pub async fn serve(self, addresses: &[SocketAddr]) -> Result<()> {
        println!("{}: serving on {addresses:?}", self.name);
        let router = Router::new()
            .route("/", get(async |State(shop): State<Arc<Self>>| Html(shop.page().await)))
            .route("/health", get(async || "ok\n"))
            .with_state(Arc::new(self));
        let mut servers = JoinSet::new();
        for &address in addresses {
            let listener = TcpListener::bind(address).await.with_context(|| format!("TCP {address}"))?;
            servers.spawn(axum::serve(listener, router.clone()).into_future());
        }
        servers.join_all().await;
        Ok(())
    }

    /// The page. A database's name is on it only if that database has just answered.
    async fn page(&self) -> String {
        let orders = describe("orders", self.orders);
        let accounts = describe("accounts", self.accounts);
        let (orders, accounts) = tokio::join!(orders, accounts);
        let Self { site, name, .. } = self;
        format!(
            "<!doctype html>\n<title>The shop</title>\n<h1>The shop at {site}</h1>\n\
             <p>page by {name}\n<p>{orders}\n<p>{accounts}\n"
        )
    }
}

async fn describe(table: &str, server: SocketAddr) -> String {
    let asked = timeout(PATIENCE, ask(table, server)).await;
    match asked.unwrap_or_else(|_| bail!("no answer within {PATIENCE:?}")) {
        Ok((database, rows)) => format!("{table} by {database}: {}", rows.join(", ")),
        Err(error) => {
            eprintln!("{table} from {server}: {error:#}");
            format!("{table} not available")
        }
    }
}

/// The name of the database server and the table's rows.
async fn ask(table: &str, server: SocketAddr) -> Result<(String, Vec<String>)> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(format!("{table}\n").as_bytes()).await?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await?;
    match serde_json::from_str(&line)? {
        Reply::Rows { server, rows } => Ok((server, rows)),
        Reply::Error(error) => bail!(error),
    }
}
