//! What users do in a lab: they ask name servers, and fetch pages and rows from the addresses they get.

use std::{
    io::{BufRead, BufReader, Write},
    net::{IpAddr, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use hickory_proto::{op::Message, rr::RecordType};

use super::Lab;
use crate::{
    data::Reply,
    dns,
    fetch::{self, Page},
    plan::{DATA_PORT, DB, LAN, Public, SITES, Site},
    steady::{self, Asked, Conversation, Question, Request, Steady},
};

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a client waits for its order to be made: longer than the shop does.
const ORDER_PATIENCE: Duration = Duration::from_secs(10);

impl Lab {
    /// What `server` answers a client over UDP.
    ///
    /// # Errors
    /// No answer within a second.
    pub fn query(&self, client: &str, server: IpAddr, name: &str, kind: RecordType) -> Result<Message> {
        let query = dns::query(name, kind)?;
        self.namespace(client).enter(|| dns::ask(server, &query, PATIENCE))
    }

    /// What `server` answers a client over TCP.
    ///
    /// # Errors
    /// No answer within a second.
    pub fn query_tcp(&self, client: &str, server: IpAddr, name: &str, kind: RecordType) -> Result<Message> {
        let query = dns::query(name, kind)?;
        self.namespace(client).enter(|| dns::ask_tcp(server, &query, PATIENCE))
    }

    /// The addresses `server` gives a client, in order.
    ///
    /// # Errors
    /// No answer within a second.
    pub fn ask(&self, client: &str, server: IpAddr, name: &str, kind: RecordType) -> Result<Vec<IpAddr>> {
        Ok(dns::addresses(&self.query(client, server, name, kind)?))
    }

    /// The IPv4 addresses a client's resolver finds: it asks one name server, then the other.
    ///
    /// # Errors
    /// Neither has an address.
    pub fn resolve(&self, client: &str, name: &str) -> Result<Vec<IpAddr>> {
        let answers = SITES.map(|site| self.ask(client, site.v4(Public::Dns).into(), name, RecordType::A));
        let found = answers.into_iter().flatten().find(|addresses| !addresses.is_empty());
        found.with_context(|| format!("neither name server has an address for {name}"))
    }

    /// What `dig` prints for it on a client.
    ///
    /// # Errors
    /// dig has no answer, or prints something else than addresses.
    pub fn dig(&self, client: &str, server: IpAddr, name: &str, kind: RecordType) -> Result<Vec<IpAddr>> {
        let server = format!("@{server}");
        let dig = ["dig", "+short", "+tries=1", "+time=1", &server, name, &kind.to_string()];
        let output = self.node(client)?.exec(&dig)?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "dig: {}", text.trim());
        text.lines().map(|line| line.parse().with_context(|| format!("dig printed {line}"))).collect()
    }

    /// Queries sent from a client every 5 ms.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub fn ask_steadily(
        &self,
        client: &str,
        server: IpAddr,
        name: &str,
        kind: RecordType,
    ) -> Result<Steady<Vec<Asked>>> {
        steady::queries(&self.namespace(client), server, name, kind, Duration::from_millis(5))
    }

    /// Requests sent from a node, so many a second, each over a connection of its own.
    ///
    /// # Errors
    /// There is no such node.
    pub fn request_steadily(&self, node: &str, question: Question, rate: u32) -> Result<Steady<Vec<Request>>> {
        steady::requests(&self.namespace(node), question, Duration::from_secs(1) / rate)
    }

    /// Requests sent from a node one after the other, over one connection.
    ///
    /// # Errors
    /// There is no such node.
    pub fn converse(&self, node: &str, question: Question) -> Result<Steady<Conversation>> {
        steady::conversation(&self.namespace(node), question)
    }

    /// The server that answers a node's request.
    ///
    /// # Errors
    /// None does.
    pub fn server(&self, node: &str, question: Question) -> Result<String> {
        steady::server(&self.namespace(node), question)
    }

    /// The shop's page, fetched by a client from this address.
    ///
    /// # Errors
    /// There is no page within a second.
    pub fn fetch(&self, client: &str, address: IpAddr) -> Result<Page> {
        self.fetch_path(client, address, "/")
    }

    /// Another of the shop's pages: `/health` is the one that the sites' probes look at.
    ///
    /// # Errors
    /// There is no page within a second.
    pub fn fetch_path(&self, client: &str, address: IpAddr, path: &str) -> Result<Page> {
        self.namespace(client).enter(|| fetch::fetch(address, "www.shop.test", path, PATIENCE))
    }

    /// Orders so much of an article with the shop's form, from a client, at this address. Gives the order's key: it is
    /// made.
    ///
    /// # Errors
    /// The shop says that it is not, or nothing within ten seconds.
    pub fn order(&self, client: &str, address: IpAddr, article: &str, quantity: u32) -> Result<String> {
        let form = format!("article={article}&quantity={quantity}");
        let posted = || fetch::post(address, "www.shop.test", "/orders", &form, ORDER_PATIENCE);
        let page = self.namespace(client).enter(posted)?;
        let made = page.after("ordered in ").and_then(|made| made.split_once(": "));
        ensure!(page.status == 201, "{client} ordered {article} at {address}: {} {}", page.status, page.body);
        Ok(made.with_context(|| format!("no key on {page:?}"))?.1.to_owned())
    }

    /// What a browser does with an answer: it takes the first address, and the next when that fails. Gives the one that
    /// worked.
    ///
    /// # Errors
    /// None works.
    pub fn browse(&self, client: &str, addresses: &[IpAddr]) -> Result<(IpAddr, Page)> {
        let pages = addresses.iter().map(|&address| Ok((address, self.fetch(client, address)?)));
        let works = |page: &Result<(IpAddr, Page)>| page.as_ref().is_ok_and(|(_, page)| page.status.is_success());
        pages.into_iter().find(works).with_context(|| format!("no page from any of {addresses:?}"))?
    }

    /// What the data tier of a site gives its own web servers for a request, such as `change KEY QUANTITY`: what is
    /// written is committed.
    ///
    /// # Errors
    /// It refuses, or has no reply within a second.
    pub fn tell(&self, site: Site, request: &str) -> Result<Vec<String>> {
        match self.read_table(&site.node(LAN[0].name), site.lan(DB.number)[0], request)? {
            Reply::Rows { rows, .. } => Ok(rows),
            Reply::Error(error) => bail!("{request} at {}: {error}", site.name),
        }
    }

    /// What the data tier at `address` replies to a client over TCP: to the name of a table, or to another request.
    ///
    /// # Errors
    /// No reply within a second.
    pub fn read_table(&self, client: &str, address: IpAddr, table: &str) -> Result<Reply> {
        let line = self.namespace(client).enter(|| {
            let mut stream = TcpStream::connect_timeout(&(address, DATA_PORT).into(), PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(format!("{table}\n").as_bytes())?;
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line)?;
            Ok(line)
        });
        let line = line.with_context(|| format!("{client} asks {address} for {table}"))?;
        Ok(serde_json::from_str(&line)?)
    }

    /// The same over UDP.
    ///
    /// # Errors
    /// No reply within a second.
    pub fn read_table_udp(&self, client: &str, address: IpAddr, table: &str) -> Result<Reply> {
        let reply = self.namespace(client).enter(|| {
            let socket = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
            socket.connect((address, DATA_PORT))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.send(table.as_bytes())?;
            let mut reply = vec![0; 2048];
            let length = socket.recv(&mut reply)?;
            reply.truncate(length);
            Ok(reply)
        });
        let reply = reply.with_context(|| format!("{client} asks {address} for {table} over UDP"))?;
        Ok(serde_json::from_slice(&reply)?)
    }
}
