//! The application tier: a stateless web server whose page reads the data tier, and whose form makes orders in it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow, bail, ensure};
use axum::{
    Form, Router,
    extract::State,
    http::StatusCode,
    response::Html,
    routing::{get, post},
};
use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};

use crate::data::Reply;

/// The page is rendered without the database after this long.
const PATIENCE: Duration = Duration::from_millis(500);

/// An order that is not made after this long has failed, as far as anyone knows.
const ORDER_PATIENCE: Duration = Duration::from_secs(5);

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

/// What somebody orders.
#[derive(Clone, Debug, Deserialize)]
struct Order {
    article: String,
    quantity: u32,
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
            .route("/orders", post(async |State(shop): State<Arc<Self>>, Form(order)| shop.order(order).await))
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
        let orders = describe("orders by", "orders", self.orders);
        let accounts = describe("accounts by", "accounts", self.accounts);
        let here = describe("newest orders in", "orders", self.database);
        let (orders, accounts, here) = tokio::join!(orders, accounts, here);
        let Self { site, name, .. } = self;
        format!(
            "<!doctype html>\n<title>The shop</title>\n<h1>The shop at {site}</h1>\n\
             <p>page by {name}\n<p>{orders}\n<p>{accounts}\n<p>{here}\n{FORM}"
        )
    }

    /// Makes an order, in the site's own database: at both sites at once, whoever holds the resource.
    async fn order(&self, Order { article, quantity }: Order) -> (StatusCode, Html<String>) {
        let made = ask(&format!("order {article} {quantity}"), self.database, ORDER_PATIENCE).await;
        let (status, said) = match made {
            Ok((database, key)) => (StatusCode::CREATED, format!("ordered in {database}: {}", key.join(" "))),
            Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ordered: {error:#}")),
        };
        (status, Html(format!("<p>page by {}\n<p>{said}\n", self.name)))
    }

    /// A long page: some fifty full packets.
    fn catalogue(&self) -> String {
        let articles = (1..=4000).map(|number| format!("<li>article {number:04}\n"));
        format!("<p>page by {}\n{}", self.name, articles.collect::<String>())
    }

    /// What the site's probes look at: this server and the site's own database, whoever holds the resources.
    async fn health(&self) -> String {
        let name = &self.name;
        match ask("orders", self.database, PATIENCE).await {
            Ok((database, _)) => format!("<p>page by {name}\n<p>database {database}\n"),
            Err(error) => format!("<p>page by {name}\n<p>no database: {error:#}\n"),
        }
    }
}

const FORM: &str = "<form method=post action=/orders><input name=article value=teapot>\
    <input name=quantity value=1><button>Order</button></form>\n";

async fn describe(words: &str, request: &str, server: SocketAddr) -> String {
    match ask(request, server, PATIENCE).await {
        Ok((database, rows)) => format!("{words} {database}: {}", rows.join(", ")),
        Err(error) => format!("{words} nobody: {error:#}"),
    }
}

/// The name of the database server, and what it gives for a request.
async fn ask(request: &str, server: SocketAddr, patience: Duration) -> Result<(String, Vec<String>)> {
    ensure!(!request.contains(['\r', '\n']), "a request is one line");
    let asked = timeout(patience, converse(request, server)).await;
    asked.map_err(|_| anyhow!("no answer from {server} within {patience:?}")).flatten()
}

async fn converse(request: &str, server: SocketAddr) -> Result<(String, Vec<String>)> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(format!("{request}\n").as_bytes()).await?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await?;
    match serde_json::from_str(&line)? {
        Reply::Rows { server, rows, .. } => Ok((server, rows)),
        Reply::Error(error) => bail!(error),
    }
}
