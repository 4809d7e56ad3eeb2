//! B4 and B5: what a try of a web server finds.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Server, attempt, page, probe, refusing, request};
use crate::config::{Check, HttpCheck};

async fn try_page(check: HttpCheck, pieces: &[&str]) -> Result<String, String> {
    let server = Server::saying(pieces).await;
    attempt(&probe(Check::Http(check)), server.address).await
}

fn found(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

fn failed(text: &str) -> Result<String, String> {
    Err(text.to_owned())
}

#[tokio::test]
async fn an_accepted_connection_is_enough_for_tcp() {
    let server = Server::start(|_| async {}).await;
    let probe = probe(Check::Tcp);
    assert_eq!(attempt(&probe, server.address).await, found("connected"));
}

#[tokio::test]
async fn a_port_nobody_listens_on_is_refused() {
    let (_socket, address) = refusing();
    for check in [Check::Tcp, Check::Http(page(None))] {
        let result = attempt(&probe(check), address).await;
        assert_eq!(result, failed("connection refused"));
    }
}

#[tokio::test]
async fn the_status_must_be_expected() {
    let several = HttpCheck { status: vec![200, 204], ..page(None) };
    for (check, head, expected) in [
        (page(None), "200 OK", found("status 200")),
        (several.clone(), "204 No Content", found("status 204")),
        (page(None), "500 Oops", failed("status 500, expected 200")),
        (several, "404 Not Found", failed("status 404, expected 200 or 204")),
    ] {
        let reply = format!("HTTP/1.1 {head}\r\n\r\n");
        assert_eq!(try_page(check, &[&reply]).await, expected);
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let reply = "HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n";
    let result = try_page(page(None), &[reply]).await;
    assert_eq!(result, failed("status 302, expected 200"));
}

#[tokio::test]
async fn the_page_must_hold_the_keyword() {
    let length = "HTTP/1.1 200 OK\r\ncontent-length: 18\r\n\r\n";
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let good = found("status 200, keyword \"db-east\"");
    for (pieces, expected) in [
        (vec![length, "<html>db-east</html>"], good.clone()),
        (vec![length, "<html>db-", "east</html>"], good.clone()),
        (vec![chunked, "5\r\n..db-\r\n", "4\r\neast\r\n", "0\r\n\r\n"], good.clone()),
        (vec!["HTTP/1.0 200 OK\r\n\r\n", "until the end: db-east"], good),
        (vec![length, "<html>db-west</html>"], failed("keyword \"db-east\" not in the page (18 bytes)")),
        (vec![chunked, "4\r\neast\r\n3\r\ndb-\r\n0\r\n\r\n"], failed("keyword \"db-east\" not in the page (7 bytes)")),
        (vec!["HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"], failed("keyword \"db-east\" not in the page (0 bytes)")),
    ] {
        let result = try_page(page(Some("db-east")), &pieces).await;
        assert_eq!(result, expected, "{pieces:?}");
    }
}

#[tokio::test]
async fn the_request_names_the_host_and_the_path_and_this_program() {
    let seen = Arc::new(Mutex::new(String::new()));
    let keep = seen.clone();
    let server = Server::start(move |mut stream| {
        let keep = keep.clone();
        async move {
            *keep.lock().unwrap() = request(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        }
    })
    .await;
    let check = HttpCheck { host: "www.shop.test:8080".to_owned(), path: "/health?deep=1".to_owned(), ..page(None) };
    attempt(&probe(Check::Http(check)), server.address).await.unwrap();
    let seen = seen.lock().unwrap();
    assert!(seen.starts_with("GET /health?deep=1 HTTP/1.1\r\n"), "{seen}");
    for header in ["host: www.shop.test:8080", "user-agent: siteswap/", "connection: close"] {
        assert!(seen.contains(&format!("\r\n{header}")), "{seen}");
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_times_out() {
    let server = Server::start(|mut stream| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let mut probe = probe(Check::Http(page(None)));
    probe.timeout = Duration::from_millis(50);
    assert_eq!(attempt(&probe, server.address).await, failed("timed out after 50ms"));
}

#[tokio::test]
async fn a_page_that_stops_coming_times_out() {
    let server = Server::start(|mut stream| async move {
        request(&mut stream).await;
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\ndb-";
        stream.write_all(head.as_bytes()).await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let mut probe = probe(Check::Http(page(Some("db-east"))));
    probe.timeout = Duration::from_millis(50);
    assert_eq!(attempt(&probe, server.address).await, failed("timed out after 50ms"));
}

#[tokio::test]
async fn a_page_that_breaks_off_fails() {
    let pieces = ["HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n", "db-"];
    let error = try_page(page(Some("db-east")), &pieces).await.unwrap_err();
    assert!(error.starts_with("the page broke off after 3 bytes: "), "{error}");
}

#[tokio::test]
async fn a_page_that_never_ends_is_read_until_the_keyword_or_one_mebibyte() {
    let server = Server::start(|mut stream| async move {
        request(&mut stream).await;
        let head = b"HTTP/1.1 200 OK\r\n\r\ndb-east".to_vec();
        let mut next = head;
        while stream.write_all(&next).await.is_ok() {
            next = vec![b'-'; 10_000];
        }
    })
    .await;
    let result = |keyword| {
        let probe = probe(Check::Http(page(Some(keyword))));
        async move { attempt(&probe, server.address).await }
    };
    assert_eq!(result("db-east").await, found("status 200, keyword \"db-east\""));
    let expected = "keyword \"db-west\" not in the first 1048576 bytes of the page";
    assert_eq!(result("db-west").await, failed(expected));
}

#[tokio::test]
async fn a_head_that_never_ends_fails() {
    let server = Server::start(|mut stream| async move {
        request(&mut stream).await;
        let mut next = b"HTTP/1.1 200 OK\r\nx: ".to_vec();
        while stream.write_all(&next).await.is_ok() {
            next = vec![b'-'; 10_000];
        }
    })
    .await;
    let result = attempt(&probe(Check::Http(page(None))), server.address).await;
    assert_eq!(result, failed("message head is too large"));
}

#[tokio::test]
async fn a_server_that_hangs_up_fails() {
    let at_once = Server::start(|_| async {}).await;
    let after_the_request = Server::saying(&[]).await;
    let half = Server::start(|mut stream| async move {
        stream.shutdown().await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    for server in [at_once, after_the_request, half] {
        let probe = probe(Check::Http(page(None)));
        let error = attempt(&probe, server.address).await.unwrap_err();
        let texts = ["connection closed before message completed", "connection reset by peer", "broken pipe"];
        assert!(texts.contains(&error.as_str()), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_speaks_something_else_fails() {
    for garbage in ["SSH-2.0-OpenSSH_9.2\r\n", "\0\x01\x02\n\n\n", "HTTP/1.1 abc\r\n\r\n", "<html>db-east</html>\n"] {
        let error = try_page(page(Some("db-east")), &[garbage]).await.unwrap_err();
        assert!(error.starts_with("invalid HTTP"), "{garbage:?}: {error}");
    }
}
