//! The application tier: a stateless web server whose page reads the data tier.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use axum::{Router, extract::State, response::Html, routing::get};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};

use crate::data::Reply;

/// The page is rendered without the database after this long.
const PATIENCE: Duration = Duration::from_millis(500);

/// One web server.
#[derive(Clone, Debug)]
pub struct Shop {
    /// The site it is at.
    pub site: String,
    /// Its own name.
    pub name: String,
    /// Resource `orders`, at its address of this site, wherever it is active.
    pub orders: SocketAddr,
    /// Resource `accounts`, likewise.
    pub accounts: SocketAddr,
    /// The site's own database, on the LAN.
    pub database: SocketAddr,
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
            .route("/catalogue", get(async |State(shop): State<Arc<Self>>| Html(shop.catalogue())))
            .route("/health", get(async |State(shop): State<Arc<Self>>| shop.health().await))
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

    /// A long page: some fifty full packets.
    fn catalogue(&self) -> String {
        let articles = (1..=4000).map(|number| format!("<li>article {number:04}\n"));
        format!("<p>page by {}\n{}", self.name, articles.collect::<String>())
    }

    /// What the site's probes look at: this server and the site's own database, whoever holds the resources.
    async fn health(&self) -> String {
        let name = &self.name;
        match ask("orders", self.database).await {
            Ok((database, _)) => format!("<p>page by {name}\n<p>database {database}\n"),
            Err(error) => format!("<p>page by {name}\n<p>no database: {error:#}\n"),
        }
    }
}

async fn describe(table: &str, server: SocketAddr) -> String {
    match ask(table, server).await {
        Ok((database, rows)) => format!("{table} by {database}: {}", rows.join(", ")),
        Err(error) => format!("{table} not available: {error:#}"),
    }
}

/// The name of the database server and the table's rows.
async fn ask(table: &str, server: SocketAddr) -> Result<(String, Vec<String>)> {
    let asked = timeout(PATIENCE, converse(table, server)).await;
    asked.map_err(|_| anyhow!("no answer from {server} within {PATIENCE:?}")).flatten()
}

async fn converse(table: &str, server: SocketAddr) -> Result<(String, Vec<String>)> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(format!("{table}\n").as_bytes()).await?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await?;
    match serde_json::from_str(&line)? {
        Reply::Rows { server, rows, .. } => Ok((server, rows)),
        Reply::Error(error) => bail!(error),
    }
}
